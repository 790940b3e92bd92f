"""Files are identified by content: SHA-256 of all bytes, computed once per process and version of a file."""
import hashlib
from functools import cache
from pathlib import Path

from saesweep.runtime.console import ProgressLine

CHUNK = 1 << 24  # bytes


def sha256(file: Path) -> str:
    """The digest in hexadecimal. The file is read again if its size, modification time or inode differs."""
    stat = file.stat()
    return _sha256(file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@cache
def _sha256(file: Path, size: int, *version: int) -> str:
    digest, done, say = hashlib.sha256(), 0, ProgressLine()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if size >= 1e9:
                say(f"reading {file.name} for its checksum: {done / 1e9:.1f} of {size / 1e9:.1f} GB")
    return digest.hexdigest()
