"""Lists of entries where an operation would find dense products faster."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from saesweep.arch.ops import entries


@contextmanager
def of_any_length() -> Iterator[None]:
    """A list is made however many entries it has: the limits of all devices are off."""
    limits = {name: value for name, value in vars(entries).items() if name.startswith("DENSE_BELOW")}
    try:
        for name in limits:
            setattr(entries, name, 0)
        yield
    finally:
        for name, value in limits.items():
            setattr(entries, name, value)
