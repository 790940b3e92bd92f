"""The held-out predictions on which the language model's loss is measured.

A prediction costs a product with all words of the vocabulary, a block a pass through the language model's blocks, so few
predictions are scored in each of many blocks, from many documents. Of a document with T tokens,

    blocks         are drawn at a rate in proportion to sqrt(T), from all documents in their order (systematic sampling)
    a block        is drawn with probability in proportion to its tokens
    half of it     is drawn likewise, since a block is read up to the last scored token only
    its tokens     are scored at random, a number in proportion to sqrt(T)

so that every token has the same chance, and a mean over scored tokens estimates that over all. A rate in proportion to T
would draw fewer documents, one rate for all would spend most passes on short ones. Neighbouring tokens are alike: the mean
delta loss of a run of 16 has the variance of that of 9 or 10 tokens at random in the block (17 blocks of the default text).
"""
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saesweep.config.settings import Settings
from saesweep.data.held_out import HeldOut, blocks_of
from saesweep.data.micro_batches import micro_batches, ordinary_positions
from saesweep.data.text import PADDING
from saesweep.lm.tokenizer import Tokenizer
from saesweep.runtime.rng import SCORED, generator


class Scored(NamedTuple):
    """Blocks of tokens, which of the tokens are to be predicted, and for each block the number of its document: those of a
    HeldOut keep theirs."""

    tokens: Int[Tensor, "blocks context"]
    at: Bool[Tensor, "blocks context"]
    documents: Int[Tensor, " blocks"]

    def parts(self, forward_tokens: int) -> Iterator[tuple[Int[Tensor, "_ _"], Bool[Tensor, "_ _"]]]:
        """Tokens and `at` of each micro-batch."""
        parts = micro_batches(self.tokens, forward_tokens)
        for part, at in zip(parts, self.at.split([len(part) for part in parts]), strict=True):
            yield part, at[:, : part.shape[1]]


def has_loss(job: Settings, tokenizer: Tokenizer) -> bool:
    """Whether the language model's loss is measured: not of an encoder, which predicts no next token."""
    return job["evaluation"]["lm_tokens"] > 0 and tokenizer.causal


def no_loss(job: Settings, tokenizer: Tokenizer) -> str | None:
    """A line for the user where evaluation.lm_tokens asks for a loss that the language model does not have."""
    if (tokens := job["evaluation"]["lm_tokens"]) == 0 or tokenizer.causal:
        return None
    return (f"evaluation.lm_tokens={tokens}: without effect: {job['model']['name']} is an encoder, which predicts no next "
            "token; ce_clean, delta_loss and the like stay empty")


def scored(held_out: HeldOut, tokenizer: Tokenizer, job: Settings) -> Scored | None:
    """About evaluation.lm_tokens predictions in evaluation.lm_blocks blocks, in more where these are too few; with null all of
    the first blocks. None of no tokens, and of an encoder. They are the same for all SAEs and on all ranks."""
    tokens, blocks = job["evaluation"]["lm_tokens"], job["evaluation"].get("lm_blocks")  # absent in older configs
    if not has_loss(job, tokenizer):
        return None
    if blocks is None:
        first = slice(blocks_of(held_out.ordinary, tokens))
        return Scored(held_out.tokens[first], _predicted(held_out.tokens[first], tokenizer), held_out.documents[first])
    read, random = held_out.read, generator(job["stream_seed"], SCORED)
    at = _drawn(_predicted(read.tokens, tokenizer), read.documents, tokens, blocks, random)
    last = (at * torch.arange(at.shape[1])).amax(1)
    order = last.argsort(stable=True)[int((~at.any(1)).sum()) :]  # of similar lengths together; those without any come first
    needed = torch.arange(at.shape[1]) <= last[order, None]
    return Scored(read.tokens[order].where(needed, PADDING), at[order], _numbered(read.documents[order], held_out.sources))


def _predicted(tokens: Int[Tensor, "blocks context"], tokenizer: Tokenizer) -> Bool[Tensor, "blocks context"]:
    """The ordinary tokens but the first of a block."""
    at = ordinary_positions(tokens, tokenizer)
    at[:, 0] = False
    return at


def _drawn(
    at: Bool[Tensor, "blocks context"], documents: Int[Tensor, " blocks"], tokens: int, blocks: int, random: torch.Generator
) -> Bool[Tensor, "blocks context"]:
    """The scored ones of the tokens `at`."""
    per_block = at.sum(1)
    roots = torch.zeros(int(documents.max()) + 1, dtype=torch.float64).index_add_(0, documents, per_block.double()).sqrt()
    each = roots * roots.sum() * tokens / roots.square().sum()  # tokens scored in a document's block, if one were drawn
    half = math.ceil(at.shape[1] / 2)
    blocks = max(blocks, math.ceil(float(each.max()) / half))
    rows, columns = at.nonzero(as_tuple=True)
    ends = (1 / roots)[documents[rows]].cumsum(0)
    draws = (torch.rand(1, generator=random) + torch.arange(blocks)) / blocks * ends[-1]
    chosen = torch.zeros_like(at)
    for token in torch.searchsorted(ends, draws).clamp(max=len(ends) - 1).tolist():
        row, start = int(rows[token]), int(columns[token]) // half * half
        count = int(each[documents[row]] / blocks + torch.rand(1, generator=random))  # a fraction is a chance
        candidates = start + at[row, start : start + half].nonzero()[:, 0]
        chosen[row, candidates[torch.randperm(len(candidates), generator=random)[:count]]] = True
    return chosen


def _numbered(documents: Int[Tensor, " blocks"], known: Int[Tensor, " known"]) -> Int[Tensor, " blocks"]:
    """Numbers in the order of the known documents, then of the others."""
    everything = torch.cat([known, documents[~torch.isin(documents, known)].unique()])
    return (documents[:, None] == everything).int().argmax(1)
