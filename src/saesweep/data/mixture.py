"""A mixture of texts (`text=mix`): documents of several, so that each part has its share of the tokens.

The next document is of the part whose tokens, divided by its share, are fewest, so shares are met up to a document. Each part
is read in its own order of stream_seed. A part that ends, and does not repeat, ends the mixture: the others alone would have
other shares. The blocks of a pool are in random order within each part, and the parts evenly spread (`evenly`), so that what
a training reads of a pool has the pool's shares.

Held-out documents are those that each part holds out; the rule of text.py holds across the parts: no document of training is
held out by another part or shares passages with what is, and none for calibration with those for evaluation.
"""
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from saesweep.data.documents import Tokenised, digest
from saesweep.data.overlap import Passages
from saesweep.data.text import BATCH, Corpus, Split, pieces, tokenized
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class Mixture(Corpus):
    """The documents of several texts. Raises UsageError where one cannot be read, or has only what others hold out."""

    repeat = False  # each part has a key of its own

    def __init__(self, text: Mapping[str, Any], stream_seed: int, tokenizer: Tokenizer) -> None:
        self.name, self._settings, self._tokenizer = text["name"], dict(text), tokenizer
        self.parts = {name: Corpus(part, stream_seed, tokenizer) for name, part in text["of"].items()}
        self.shares, self.finite = text["shares"], all(part.finite for part in self.parts.values())
        self.repeat_key = self.held_out_key = ""
        for name, part in self.parts.items():
            if part.finite and next(self._kept(part.one_pass("train")), None) is None:
                raise UsageError(f"text.of.{name}: all of its training documents are held out by other texts of it, or "
                                 "share passages with those; leave it out, or another")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings, and the identity of each part."""
        known = {name: part.identity for name, part in self.parts.items()}
        joined = "".join(known[name]["digest"] for name in sorted(known))
        return self._settings | {"of": known, "digest": digest(joined).hex()}

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        return itertools.islice(self.held_out() if split == "held_out" else self._train(), start, None)

    def one_pass(self, split: Split, number: int = 0) -> Iterator[str]:
        return self.held_out() if split == "held_out" else self.train(number)

    def train(self, number: int) -> Iterator[str]:
        """Until a part ends: never where all repeat."""
        parts = {
            name: self._kept(part.documents("train") if part.repeat else part.one_pass("train", number))
            for name, part in self.parts.items()
        }
        for (document,) in self._by_shares({name: ((one,) for one in part) for name, part in parts.items()}, "repeat"):
            yield document

    def held_out(self) -> Iterator[str]:
        """One for evaluation, one for calibration, and so on, each two of one part; until a part ends."""
        for pair in self._by_shares({name: iter(self._pairs[name]) for name in self.parts}, "held_out"):
            yield from pair

    def _kept(self, documents: Iterable[str]) -> Iterator[str]:
        """Those that share nothing with held-out documents of any part."""
        known, passages = self._held_out
        return (one for one in documents if digest(one) not in known and not passages.overlap(one))

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[str, ...]]]:
        """Of each part, pairs of an evaluation and a calibration document, of which the second may be empty."""
        each = {name: list(part.one_pass("held_out")) for name, part in self.parts.items()}
        evaluation = list(itertools.chain(*(documents[::2] for documents in each.values())))
        known, passages = set(map(digest, evaluation)), Passages(evaluation)

        def alone(document: str) -> str:
            return "" if digest(document) in known or passages.overlap(document) else document

        return {name: list(itertools.zip_longest(documents[::2], map(alone, documents[1::2]), fillvalue=""))
                for name, documents in each.items()}

    @cached_property
    def _held_out(self) -> tuple[set[bytes], Passages]:
        everything = [one for pairs in self._pairs.values() for pair in pairs for one in pair if one]
        return set(map(digest, everything)), Passages(everything)

    def _by_shares(self, parts: Mapping[str, Iterator[Sequence[str]]], key: str) -> Iterator[list[Tokenised]]:
        """Groups of documents, each of the part that is furthest behind its share, until one ends; key: what gives it more."""
        names, read = list(parts), dict.fromkeys(parts, 0)
        waiting = {name: self._tokenised(part, names.index(name)) for name, part in parts.items()}
        while True:
            name = min(names, key=lambda one: read[one] / self.shares[one])
            if (group := next(waiting[name], None)) is None:
                setattr(self, f"{key}_key", f"text.of.{name}.{key}")
                return
            read[name] += sum(token >= 0 and token not in self._tokenizer.special for one in group for token in one.ids)
            yield group

    def _tokenised(self, groups: Iterator[Sequence[str]], part: int) -> Iterator[list[Tokenised]]:
        while batch := list(itertools.islice(groups, BATCH)):
            ids = tokenized(itertools.chain(*batch), self._tokenizer)
            for group in batch:
                yield [Tokenised.of(one, next(ids), part) for one in group]


def parts_of(documents: Iterable[str], tokenizer: Tokenizer, context: int) -> Int[Tensor, " blocks"] | None:
    """The number of the part of each block of the documents; None where they are of one text."""
    of = [(one.part, len(list(pieces(one.ids, tokenizer, context)))) for one in documents if isinstance(one, Tokenised)]
    if any(part is None for part, _ in of) or not of:
        return None
    return torch.tensor([part for part, count in of for _ in range(count)])


def evenly(
    order: Int[Tensor, " blocks"], parts: Int[Tensor, " blocks"], tokens: Int[Tensor, " blocks"]
) -> Int[Tensor, " blocks"]:
    """The order with the blocks of each part evenly spread: after any of them, each part has the same fraction of its tokens.

    parts, tokens: of each block the number of its part, and how many ordinary tokens it has.
    """
    parts, tokens = parts[order], tokens[order].double()
    places = torch.empty_like(tokens)
    for part in parts.unique().tolist():
        own = tokens[parts == part]
        places[parts == part] = (own.cumsum(0) - own / 2) / own.sum().clamp(min=1)
    return order[places.argsort(stable=True)]


def corpus_of(text: Mapping[str, Any], stream_seed: int, tokenizer: Tokenizer) -> Corpus:
    """The documents of a file of conf/text."""
    return (Mixture if text["kind"] == "mix" else Corpus)(text, stream_seed, tokenizer)
