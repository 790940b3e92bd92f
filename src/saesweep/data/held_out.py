"""Held-out blocks: which tokens of the held-out documents an evaluation or a calibration reads."""
from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from saesweep.data.micro_batches import ordinary_positions
from saesweep.data.text import Corpus, pieces, tokenized
from saesweep.errors import UsageError
from saesweep.lm.models import Tokenizer
from saesweep.runtime.rng import HELD_OUT, generator

EVALUATION, CALIBRATION = 0, 1  # the held-out documents are dealt out in turn


class HeldOut(NamedTuple):
    """Blocks of tokens; of each, the number of the document that it is from, and how many ordinary tokens it has."""

    tokens: Int[Tensor, "blocks context"]
    documents: Int[Tensor, " blocks"]
    ordinary: Int[Tensor, " blocks"]

    @property
    def count(self) -> int:
        """Documents."""
        return int(self.documents.max()) + 1


def held_out_blocks(
    corpus: Corpus, tokenizer: Tokenizer, purpose: int, *, tokens: int, context: int, stream_seed: int
) -> HeldOut:
    """At least `tokens` ordinary tokens in blocks drawn from all over the held-out documents of this purpose."""
    documents = enumerate(tokenized(itertools.islice(corpus.documents("held_out"), purpose, None, 2), tokenizer))
    found, numbers = torch.empty(0, context, dtype=torch.long), list[int]()
    while (there := int(ordinary_positions(found, tokenizer).sum())) < tokens:
        read = list(itertools.islice(documents, 256))
        more = [(number, block) for number, ids in read for block in pieces(ids, tokenizer, context)]
        if not read:
            key = ("evaluation.tokens", "evaluation.calibration_tokens")[purpose]
            fix = f"write {key}={there}, or " if there else ""
            raise UsageError(
                f"{key}={tokens}: there are {there:,} held-out tokens for it; {fix}hold out more with text.held_out"
            )
        found = torch.cat([found, *(block[None] for _, block in more)])
        numbers += [number for number, _ in more]
    order = torch.randperm(len(found), generator=generator(stream_seed, HELD_OUT, purpose))
    drawn = HeldOut(found[order], torch.tensor(numbers)[order], ordinary_positions(found[order], tokenizer).sum(1))
    blocks, documents, ordinary = (part[: blocks_of(drawn, tokens)] for part in drawn)
    return HeldOut(blocks, documents.unique(return_inverse=True)[1], ordinary)


def blocks_of(held_out: HeldOut, tokens: int) -> int:
    """How many of the first blocks hold so many ordinary tokens."""
    return int((held_out.ordinary.cumsum(0) < tokens).sum()) + 1
