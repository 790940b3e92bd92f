"""Progress on the terminal: plain lines on stderr, or one status line below the live table while there is one."""
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.5  # seconds without a word on a terminal
_status: Callable[[str], None] | None = None  # writes the status line of the live table; None: there is no table
_working = list[threading.Event]()  # the `working` blocks that have not ended, the innermost last


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
        if _rank() > 0:
            return
        if _status is not None:
            _status(text)
        elif final or now - self.last >= self.every:
            self.last = now
            print(text, file=sys.stderr, flush=True)


@contextmanager
def working(text: str, always: bool = True) -> Iterator[None]:
    """Say what the block does; where somebody looks, again every few seconds, with the seconds that it has taken.

    always: also where stderr is no terminal.
    """
    say, over, looks = ProgressLine(0.0), threading.Event(), is_live() or sys.stderr.isatty()
    if looks or always:
        say(text)
    thread = threading.Thread(target=_repeat, args=(text, say, over), daemon=True)
    _working.append(over)
    if looks:
        thread.start()
    try:
        yield
    finally:
        over.set()
        _working.remove(over)
        if looks:
            thread.join()


def _repeat(text: str, say: ProgressLine, over: threading.Event) -> None:
    began = time.monotonic()
    while not over.wait(PATIENCE):
        if _working[-1:] == [over]:  # the block within it speaks
            say(f"{text}, {time.monotonic() - began:.0f} s")


def _rank() -> int:
    """Of this process; 0 until torch is imported, which takes seconds and which this file does not do."""
    distributed = sys.modules.get("saesweep.runtime.distributed")
    return distributed.rank() if distributed else 0
