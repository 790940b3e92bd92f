"""A user's mistake ends the program with one plain message."""
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from saesweep.errors import UsageError


@contextmanager
def mistakes_told() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        sys.exit(str(error))  # the message on stderr, exit code 1; no job after this one is started


@contextmanager
def no_job_after_an_error() -> Iterator[None]:
    """Of what a callback raises Hydra makes a warning, and starts the job: only SystemExit ends the program."""
    from saesweep.sweep.hydra_errors import REFUSED, said

    try:
        with mistakes_told():
            yield
    except REFUSED as error:
        sys.exit(said(error))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
