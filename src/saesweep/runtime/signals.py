"""Ctrl-C and SIGTERM unwind the stack and set the exit code, but never in the middle of a step or of a checkpoint."""
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_received: list[int] = []
_deferring = 0
_stop_file: Path | None = None
_requested = False
_handlers: dict[int, Callable[[int, FrameType | None], None]] = {}


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit with 130 after Ctrl-C and 143 after SIGTERM; Lightning alone exits with 1 and 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _received:
            print("interrupted; run the same command to resume", file=sys.stderr)
            number = _received[0]
            _received.clear()
            raise SystemExit(128 + number)


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that arrives in the block takes effect at its end: the block runs whole."""
    global _deferring
    _deferring, before = _deferring + 1, len(_received)
    try:
        yield
    finally:
        _deferring -= 1
    if not _deferring and len(_received) > before:
        _unwind(_received[-1])


def stop_requested() -> bool:
    """Whether this rank is to save and exit: the launcher has written the stop file, or an engine has sent a signal."""
    return _requested or (_stop_file is not None and _stop_file.exists())


def request_stop(*_: object) -> None:
    """Also a signal handler: a rank that exits at once, by itself, leaves the others waiting."""
    global _requested
    _requested = True


def install_handler(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """For the whole process; `reinstall_handlers` restores it where a library has replaced it."""
    _handlers[number] = handler
    signal.signal(number, handler)


def reinstall_handlers() -> None:
    """Lightning's own handler ends a training on SIGTERM, each rank at a different step."""
    for number, handler in _handlers.items():
        signal.signal(number, handler)


def watch_stop_file(stop_file: Path) -> None:
    """`stop_requested` is true once this file exists."""
    global _stop_file
    _stop_file = stop_file


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if not _deferring:
        _unwind(number)


def _unwind(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
