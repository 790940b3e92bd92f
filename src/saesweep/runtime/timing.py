"""How long a call takes."""
import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def quickest(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the faster of two calls, with the GPU synchronised, and the result of the last."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result
