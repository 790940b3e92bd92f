"""How long a call takes."""
import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def quickest(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the faster of two calls, with the GPU synchronised, and the result of the second."""
    first, last = _timed(call), _timed(call)
    return min(first[0], last[0]), last[1]


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result
