"""Micro-batches: the blocks of one forward pass, and which of their positions hold ordinary tokens."""
import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saesweep.data.text import PADDING
from saesweep.lm.tokenizer import Tokenizer

SORTED_BELOW = 0.97  # blocks are sorted by length where that leaves less than this share of the positions


def ordinary_positions(tokens: Int[Tensor, "*batch context"], tokenizer: Tokenizer) -> Bool[Tensor, "*batch context"]:
    """Which positions hold ordinary tokens: neither padding (-1) nor only read (below) nor special."""
    special = torch.tensor(sorted(tokenizer.special), dtype=tokens.dtype)
    return (tokens >= 0) & ~torch.isin(tokens, special)


def lm_input(tokens: Int[Tensor, "*batch context"]) -> Int[Tensor, "*batch context"]:
    """The ids that the language model reads: those that are not ordinary too, and for padding 0."""
    return torch.where(tokens < -1, -2 - tokens, tokens.clamp(min=0))


def micro_batches(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> list[Int[Tensor, "_ _"]]:
    """Whole blocks of at most `forward_tokens` positions together, at least one block, each micro-batch cut to the length of
    its longest block. Attention is causal or masked, so the padding that is cut off
    changes no other position."""
    parts, first, longest = [], 0, 1
    for block, length in enumerate([*_lengths(tokens).tolist(), tokens.shape[1] * forward_tokens + 1]):
        if block > first and (block + 1 - first) * max(longest, length) > forward_tokens:
            parts.append(tokens[first:block, :longest])
            first, longest = block, 1
        longest = max(longest, length)
    return parts


def _lengths(tokens: Int[Tensor, "blocks context"]) -> Int[Tensor, " blocks"]:
    """Positions up to the last token of each block, at least 1."""
    return ((tokens != PADDING) * torch.arange(1, tokens.shape[1] + 1)).amax(1).clamp(min=1)


def by_length(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> Int[Tensor, " blocks"]:
    """The order in which to cut blocks into micro-batches: longest first, or as they are where that saves little.

    Another order may change the last bits of activations. Full blocks keep theirs.
    """
    order = _lengths(tokens).argsort(descending=True, stable=True)
    saves = positions(tokens[order], forward_tokens) < SORTED_BELOW * positions(tokens, forward_tokens)
    return order if saves else torch.arange(len(tokens))


def positions(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> int:
    """The number of positions of all micro-batches, padding included."""
    return sum(part.numel() for part in micro_batches(tokens, forward_tokens))


def tokens_wanted(rows: int, context: int, window: int, tokenizer: Tokenizer) -> int:
    """Ordinary tokens to harvest for `rows` rows: those of whole blocks without padding, of at most `window` tokens."""
    blocks = min(max(1, window // context), math.ceil(1.03 * rows / (context - 1)))
    return blocks * (context - (tokenizer.bos is not None))
