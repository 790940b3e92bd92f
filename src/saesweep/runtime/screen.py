"""Whether a live table has the terminal, and the line below it that any part of the program can write."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_line: Callable[[str], None] | None = None


@contextmanager
def shown_by(line: Callable[[str], None]) -> Iterator[None]:
    """Inside, what is said goes there."""
    global _line
    _line = line
    try:
        yield
    finally:
        _line = None


def is_live() -> bool:
    return _line is not None


def say(text: str) -> None:
    assert _line is not None
    _line(text)
