"""`activations.forward_tokens=auto`: the micro-batch size at which the language model takes the least time per token."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from saesweep.data.harvest import harvest
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.lm.models import LanguageModel
from saesweep.runtime.memory import out_of_memory
from saesweep.runtime.timing import quickest

WORTH_IT = 1.05  # a larger micro-batch has to be so much faster, for the memory that it takes


def timed_forward(lm: LanguageModel, points: Sequence[HookPoint], blocks: int, context: int) -> tuple[float, Rows]:
    """Seconds that so many blocks of random tokens take, and their activations."""
    tokens = torch.randint(lm.tokenizer.vocab_size, (blocks, context), generator=torch.Generator().manual_seed(0))
    return quickest(lambda: harvest(lm, points, tokens))


def fastest_forward(lm: LanguageModel, points: Sequence[HookPoint], context: int, most: int) -> int:
    """How many tokens a forward takes for a token to take the least time: context, twice that and so on, up to `most`.

    Of sizes that are level the smallest; where memory ends first, no more than half of what fits, for the SAEs need some.
    It is timed, so it may be another one the next time.
    """
    rates: dict[int, float] = {}
    size = context
    while size <= max(most, context) and not _is_past_its_best(list(rates.values())):
        try:
            rates[size] = size / timed_forward(lm, points, size // context, context)[0]
        except Exception as error:
            if not rates or not out_of_memory(error):
                raise
            if len(rates) > 1:
                del rates[size // 2]
            break
        size *= 2
    return next(size for size, rate in rates.items() if WORTH_IT * rate >= max(rates.values()))


def _is_past_its_best(rates: Sequence[float]) -> bool:
    return len(rates) > 2 and max(rates[-2:]) < WORTH_IT * max(rates[:-2])
