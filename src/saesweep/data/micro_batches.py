"""Which blocks the language model reads at once, and which of their positions hold ordinary text."""
from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saesweep.lm.models import Tokenizer


def ordinary_positions(tokens: Int[Tensor, "*batch context"], tokenizer: Tokenizer) -> Bool[Tensor, "*batch context"]:
    """Which positions hold ordinary text: not padding (-1) and no special token."""
    special = torch.tensor(sorted(tokenizer.special), dtype=tokens.dtype)
    return (tokens >= 0) & ~torch.isin(tokens, special)


def micro_batches(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> list[Int[Tensor, "_ _"]]:
    """What goes through the language model at once: so many tokens, but whole blocks and at least one, each micro-batch cut
    to its longest block. No token sees those behind it, so what is cut off changes no other."""
    places = torch.arange(1, tokens.shape[1] + 1)
    lengths = ((tokens >= 0) * places).amax(1).clamp(min=1).tolist()  # up to the last token
    parts, first, longest = [], 0, 1
    for block, length in enumerate([*lengths, tokens.shape[1] * forward_tokens + 1]):
        if block > first and (block + 1 - first) * max(longest, length) > forward_tokens:
            parts.append(tokens[first:block, :longest])
            first, longest = block, 1
        longest = max(longest, length)
    return parts


def fill(tokens: Int[Tensor, "blocks context"], tokenizer: Tokenizer, forward_tokens: int) -> float:
    """The share of the positions in the micro-batches that hold ordinary tokens."""
    positions = sum(part.numel() for part in micro_batches(tokens, forward_tokens))
    return int(ordinary_positions(tokens, tokenizer).sum()) / positions


def tokens_wanted(rows: int, context: int, window: int, tokenizer: Tokenizer) -> int:
    """Ordinary tokens of a window for so many rows: what whole blocks of at most `window` tokens hold if none is padding."""
    blocks = min(max(1, window // context), math.ceil(1.03 * rows / (context - 1)))
    return blocks * (context - (tokenizer.bos is not None))
