"""Held-out blocks: the tokens of held-out documents on which SAEs are evaluated or calibrated."""
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from saesweep.data.micro_batches import ordinary_positions
from saesweep.data.text import Corpus, pieces, tokenized
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer
from saesweep.runtime.rng import HELD_OUT, generator

EVALUATION, CALIBRATION = 0, 1  # purposes: each takes every other held-out document


class Read(NamedTuple):
    """All blocks of the documents that were read, in order, and the number of each block's document."""

    tokens: Int[Tensor, "all_blocks context"]
    documents: Int[Tensor, " all_blocks"]


class HeldOut(NamedTuple):
    """Blocks of tokens; for each block the number of its document, and how many ordinary tokens it has."""

    tokens: Int[Tensor, "blocks context"]
    documents: Int[Tensor, " blocks"]
    ordinary: Int[Tensor, " blocks"]
    read: Read  # what they were drawn from
    sources: Int[Tensor, " documents"]  # the numbers of the documents in it

    @property
    def count(self) -> int:
        """Number of documents."""
        return len(self.sources)

    @property
    def of_tokens(self) -> Int[Tensor, " tokens"]:
        """The number of the document of each ordinary token."""
        return torch.repeat_interleave(self.documents, self.ordinary)

    def split(self, blocks: int) -> "Iterator[HeldOut]":
        """So many blocks at a time."""
        each = (part.split(blocks) for part in (self.tokens, self.documents, self.ordinary))
        for tokens, documents, ordinary in zip(*each, strict=True):
            yield self._replace(tokens=tokens, documents=documents, ordinary=ordinary)


def held_out_blocks(
    corpus: Corpus, tokenizer: Tokenizer, purpose: int, *, tokens: int, context: int, stream_seed: int
) -> HeldOut:
    """Blocks with at least `tokens` ordinary tokens, drawn at random from the held-out documents of a purpose.
    Raises UsageError where those documents have fewer."""
    read = _read(corpus, tokenizer, purpose, tokens, context)
    order = torch.randperm(len(read.tokens), generator=generator(stream_seed, HELD_OUT, purpose))
    ordinary = ordinary_positions(read.tokens[order], tokenizer).sum(1)
    order, ordinary = (part[: blocks_of(ordinary, tokens)] for part in (order, ordinary))
    sources, documents = read.documents[order].unique(return_inverse=True)
    return HeldOut(read.tokens[order], documents, ordinary, read, sources)


def _read(corpus: Corpus, tokenizer: Tokenizer, purpose: int, tokens: int, context: int) -> Read:
    documents = enumerate(tokenized(itertools.islice(corpus.documents("held_out"), purpose, None, 2), tokenizer))
    found, numbers = torch.empty(0, context, dtype=torch.long), list[int]()
    while (available := int(ordinary_positions(found, tokenizer).sum())) < tokens:
        some = list(itertools.islice(documents, 256))
        more = [(number, block) for number, ids in some for block in pieces(ids, tokenizer, context)]
        if not some:
            key = ("evaluation.tokens", "evaluation.calibration_tokens")[purpose]
            fix = f"write {key}={available}, or " if available else ""
            raise UsageError(f"{key}={tokens}: there are {available:,} held-out tokens for it; {fix}hold out more with "
                             f"{corpus.held_out_key}")
        found = torch.cat([found, *(block[None] for _, block in more)])
        numbers += [number for number, _ in more]
    return Read(found, torch.tensor(numbers))


def blocks_of(ordinary: Int[Tensor, " blocks"], tokens: int) -> int:
    """The smallest number of first blocks that hold `tokens` ordinary tokens."""
    return int((ordinary.cumsum(0) < tokens).sum()) + 1
