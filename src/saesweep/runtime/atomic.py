"""Files that are written whole or not at all, with the folders above them."""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """A path beside the file to write to; it replaces the file when the block ends, and is removed where it raises."""
    file.parent.mkdir(parents=True, exist_ok=True)
    path = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield path
        path.replace(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write(file: Path, content: Any) -> None:
    """Replace the file's content. `content`: a text, or bytes (an array of them too)."""
    with draft(file) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def share(file: Path) -> None:
    """Make the file as readable as its folder: safetensors makes files that nobody else may read."""
    file.chmod(file.parent.stat().st_mode & 0o666)
