"""How the program ends: one plain message for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from saesweep.errors import UsageError


@contextmanager
def mistakes_told() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        sys.exit(str(error))  # the message on stderr, exit code 1; no job after this one is started


@contextmanager
def signals_obeyed() -> Iterator[None]:
    """Both signals unwind the stack, and set the exit code: Lightning ends a Ctrl-C with 1, a SIGTERM with 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            print("interrupted; the same command goes on with what is not finished", file=sys.stderr)
            raise SystemExit(128 + received[0])
