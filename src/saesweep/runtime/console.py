"""Progress on the terminal: plain lines on stderr, or one status line below the live table while there is one."""
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from saesweep.runtime import distributed

_status: Callable[[str], None] | None = None  # writes the status line of the live table; None: there is no table


@contextmanager
def route_status(write: Callable[[str], None]) -> Iterator[None]:
    """Within the block a live table has the terminal, and progress goes to `write`."""
    global _status
    _status = write
    try:
        yield
    finally:
        _status = None


def is_live() -> bool:
    """Whether a live table has the terminal."""
    return _status is not None


class TimeLeft:
    """How long the rest of some work takes, by what it has taken so far."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, done: float, whole: float) -> str:
        """Such as ", about 4 min left", to go at the end of a line; empty where nothing is done."""
        if not done:
            return ""
        seconds = (time.monotonic() - self.began) * (whole - done) / done
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


class ProgressLine:
    """Prints on rank 0: at most one line every `every` seconds, or each one as the status line of a live table."""

    def __init__(self, every: float = 10.0):
        self.every, self.last = every, 0.0

    def __call__(self, text: str, final: bool = False) -> None:
        now = time.monotonic()
        if distributed.rank() > 0:
            return
        if _status is not None:
            _status(text)
        elif final or now - self.last >= self.every:
            self.last = now
            print(text, file=sys.stderr, flush=True)
