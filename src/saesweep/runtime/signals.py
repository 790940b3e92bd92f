"""Ctrl-C and SIGTERM: they unwind the stack and set the exit code, but never in the middle of a step or a save."""
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
_asked = False
_ours: dict[int, Callable[[int, FrameType | None], None]] = {}


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends with 130 after Ctrl-C and 143 after SIGTERM; Lightning alone would end with 1 and 0."""
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
            print("interrupted; the same command goes on with what is not finished", file=sys.stderr)
            number = _received[0]
            _received.clear()
            raise SystemExit(128 + number)


@contextmanager
def deferred() -> Iterator[None]:
    """A signal inside is obeyed at the end: what is done here is done whole or not at all."""
    global _deferring
    _deferring, before = _deferring + 1, len(_received)
    try:
        yield
    finally:
        _deferring -= 1
    if not _deferring and len(_received) > before:
        _unwind(_received[-1])


def stop_requested() -> bool:
    """Of a rank that another process has started: it leaves a file where `watch` looks, or an engine sends a signal."""
    return _asked or (_stop_file is not None and _stop_file.exists())


def request_stop(*_: object) -> None:
    """As a handler, too: a rank that saves and ends at once, by itself, would leave the others waiting."""
    global _asked
    _asked = True


def install_handler(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """For the whole process: `take_back` installs it again over what a library has put around it."""
    _ours[number] = handler
    signal.signal(number, handler)


def reinstall_handlers() -> None:
    """Lightning ends a training by itself on SIGTERM, and each rank at a step of its own."""
    for number, handler in _ours.items():
        signal.signal(number, handler)


def watch_stop_file(stop_file: Path) -> None:
    global _stop_file
    _stop_file = stop_file


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if not _deferring:
        _unwind(number)


def _unwind(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
