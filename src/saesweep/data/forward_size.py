"""`activations.forward_tokens=auto`: the micro-batch size at which the language model is fastest per token."""
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from saesweep.data.harvest import harvest
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.lm.models import LanguageModel
from saesweep.runtime.memory import out_of_memory

T = TypeVar("T")
MIN_SPEEDUP = 1.05  # a larger micro-batch, which takes more memory, must be faster by this factor


def quickest(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the faster of two calls, with the GPU synchronised, and the result of the second."""
    first, last = timed(call), timed(call)
    return min(first[0], last[0]), last[1]


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, with the GPU synchronised, and its result."""
    start = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def timed_forward(lm: LanguageModel, points: Sequence[HookPoint], blocks: int, context: int) -> tuple[float, Rows]:
    """Seconds that a micro-batch of `blocks` blocks of random tokens takes, and its activations."""
    return quickest(lambda: forward_of(lm, points, blocks, context))


def forward_of(lm: LanguageModel, points: Sequence[HookPoint], blocks: int, context: int) -> Rows:
    """The activations of `blocks` blocks of random tokens."""
    tokens = torch.randint(lm.tokenizer.vocab_size, (blocks, context), generator=torch.Generator().manual_seed(0))
    return harvest(lm, points, tokens)


def fastest_forward(lm: LanguageModel, points: Sequence[HookPoint], context: int, most: int) -> int:
    """The micro-batch size in tokens (context, doubled up to `most`) with the highest throughput.

    The smallest of sizes within MIN_SPEEDUP of the fastest; if memory runs out, at most half of what fits, as the SAEs need
    memory too. The result depends on timings, so it may differ between runs.
    """
    rates: dict[int, float] = {}
    size = context
    while size <= max(most, context) and not _slower_again(list(rates.values())):
        try:
            rates[size] = size / timed_forward(lm, points, size // context, context)[0]
        except Exception as error:
            if not rates or not out_of_memory(error):
                raise
            if len(rates) > 1:
                del rates[size // 2]
            break
        size *= 2
    return next(size for size, rate in rates.items() if MIN_SPEEDUP * rate >= max(rates.values()))


def _slower_again(rates: Sequence[float]) -> bool:
    """Whether neither of the last two sizes is MIN_SPEEDUP faster than all before them."""
    return len(rates) > 2 and max(rates[-2:]) < MIN_SPEEDUP * max(rates[:-2])
