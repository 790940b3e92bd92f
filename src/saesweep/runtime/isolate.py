"""A failure of one SAE is that SAE's own: the rest of its group continues."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from saesweep.runtime.memory import out_of_memory


@contextmanager
def isolate_failures(on_failure: Callable[[Exception], None]) -> Iterator[None]:
    """Hand an exception of the block to `on_failure`; one that says that memory has run out concerns all, and is raised."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        on_failure(error)
