"""A user's mistake ends the program with one plain message."""
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from saesweep.errors import UsageError


@contextmanager
def mistakes_told() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        sys.exit(str(error))  # the message on stderr, exit code 1; no job after this one is started
