"""Micro-batches: the blocks of one forward pass, and which of their positions hold ordinary tokens."""
import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saesweep.lm.tokenizer import Tokenizer


def ordinary_positions(tokens: Int[Tensor, "*batch context"], tokenizer: Tokenizer) -> Bool[Tensor, "*batch context"]:
    """Which positions hold ordinary tokens: neither padding (-1) nor special."""
    special = torch.tensor(sorted(tokenizer.special), dtype=tokens.dtype)
    return (tokens >= 0) & ~torch.isin(tokens, special)


def micro_batches(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> list[Int[Tensor, "_ _"]]:
    """Whole blocks of at most `forward_tokens` positions together, at least one block, each micro-batch cut to the length of
    its longest block. Attention is causal, so the padding that is cut off changes no other position."""
    positions = torch.arange(1, tokens.shape[1] + 1)
    lengths = ((tokens >= 0) * positions).amax(1).clamp(min=1).tolist()  # up to the last token
    parts, first, longest = [], 0, 1
    for block, length in enumerate([*lengths, tokens.shape[1] * forward_tokens + 1]):
        if block > first and (block + 1 - first) * max(longest, length) > forward_tokens:
            parts.append(tokens[first:block, :longest])
            first, longest = block, 1
        longest = max(longest, length)
    return parts


def fill(tokens: Int[Tensor, "blocks context"], tokenizer: Tokenizer, forward_tokens: int) -> float:
    """Share of the positions of all micro-batches that hold ordinary tokens."""
    positions = sum(part.numel() for part in micro_batches(tokens, forward_tokens))
    return int(ordinary_positions(tokens, tokenizer).sum()) / positions


def tokens_wanted(rows: int, context: int, window: int, tokenizer: Tokenizer) -> int:
    """Ordinary tokens to harvest for `rows` rows: those of whole blocks without padding, of at most `window` tokens."""
    blocks = min(max(1, window // context), math.ceil(1.03 * rows / (context - 1)))
    return blocks * (context - (tokenizer.bos is not None))
