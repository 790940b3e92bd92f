"""A simulated SIGKILL: from a chosen change of the file system on, the program writes nothing more.

Python raises an audit event before it opens a file for writing, and before it creates, renames or removes anything. At the
chosen event this module raises `Killed`, which no `except Exception` catches, and blocks every change while the stack
unwinds. As after a real kill, a file that was just opened is empty, and a temporary file is half written.
"""
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}
_watch: Callable[[str, Path], None] | None = None


class Killed(BaseException):
    """Raised where the program is killed."""


@contextmanager
def simulated_kill(folder: Path, when: Callable[[str], bool]) -> Iterator[None]:
    """Raises Killed at the first change below the folder for which `when("<event> <path>")` is true."""
    global _watch
    dead = False

    def watch(event: str, path: Path) -> None:
        nonlocal dead
        if not path.is_relative_to(folder) or _changes_nothing(event, path):
            return
        if not dead and when(f"{event} {_without_numbers(path.relative_to(folder))}"):
            dead = True
            with _unwatched():
                _truncate(event, path)
        if dead:
            raise Killed(f"{event} {path}")

    _watch = watch
    try:
        yield
    finally:
        _watch = None


def _changes_nothing(event: str, path: Path) -> bool:
    """Creating an existing folder, removing a missing file, and opening an unnamed temporary file in a folder."""
    return path.exists() == (event == "os.mkdir") if event != "open" else path.is_dir()


def _without_numbers(path: Path) -> str:
    """The path with process ids, steps and checksums replaced by placeholders."""
    return re.sub(r"\d+-[0-9a-f]{8}(?=\.safetensors)", "STEP-CRC", re.sub(r"\.\d+\.tmp$", ".PID.tmp", str(path)))


def _truncate(event: str, path: Path) -> None:
    if event == "open":
        path.touch()
    elif event in ("os.rename", "os.chmod") and path.name.startswith("."):
        os.truncate(path, path.stat().st_size // 2)


@contextmanager
def _unwatched() -> Iterator[None]:
    global _watch
    watch, _watch = _watch, None
    try:
        yield
    finally:
        _watch = watch


def _audit(event: str, args: tuple) -> None:
    if _watch is None or not (event in CHANGES or (event == "open" and set(args[1] or "") & set("wax+"))):
        return
    with suppress(TypeError):  # a file descriptor has no path
        _watch(event, Path(os.path.abspath(os.fsdecode(args[0]))))


sys.addaudithook(_audit)
