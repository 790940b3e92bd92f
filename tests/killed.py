"""A kill without a process: from a chosen change of the disk on, nothing that the program does reaches the disk.

Python raises an audit event before a file is opened for writing, and before anything is made, renamed or removed. At the
chosen event this raises `Killed`, which no `except Exception` catches, and it refuses every change that is made while the
stack unwinds. As after a real kill, a file that was just opened is left empty, and a draft is left half written.
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
    """The program ends here."""


@contextmanager
def killed(folder: Path, when: Callable[[str], bool]) -> Iterator[None]:
    """Raises Killed at the first change below the folder for which `when` is true; it is given "<event> <path>"."""
    global _watch
    dead = False

    def watch(event: str, path: Path) -> None:
        nonlocal dead
        if not path.is_relative_to(folder) or _changes_nothing(event, path):
            return
        if not dead and when(f"{event} {_without_numbers(path.relative_to(folder))}"):
            dead = True
            with _unwatched():
                _cut_short(event, path)
        if dead:
            raise Killed(f"{event} {path}")

    _watch = watch
    try:
        yield
    finally:
        _watch = None


def _changes_nothing(event: str, path: Path) -> bool:
    """A folder that is there is not made, and what is not there is not removed; an unnamed file is opened in a folder."""
    return path.exists() == (event == "os.mkdir") if event != "open" else path.is_dir()


def _without_numbers(path: Path) -> str:
    """Of a process, a step and a checksum."""
    return re.sub(r"\d+-[0-9a-f]{8}(?=\.safetensors)", "STEP-CRC", re.sub(r"\.\d+\.tmp$", ".PID.tmp", str(path)))


def _cut_short(event: str, path: Path) -> None:
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


def _heard(event: str, args: tuple) -> None:
    if _watch is None or not (event in CHANGES or (event == "open" and set(args[1] or "") & set("wax+"))):
        return
    with suppress(TypeError):  # a file descriptor has no path
        _watch(event, Path(os.path.abspath(os.fsdecode(args[0]))))


sys.addaudithook(_heard)
