"""The held-out documents that a study reads, in two halves: `fit`, from which everything is chosen, and `test`.

A document is in `test` by a bit of sha256(its digest and the seed), so no document changes its half when more are read. Test
documents of whose 13-grams more than half also occur in fit documents are left out (duplicates.py).
"""
from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32

from saesweep.data.text import BATCH, Corpus
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer
from saesweep.study import duplicates
from saesweep.study.hits import HALVES, HalfName


@dataclass(frozen=True)
class Document:
    text: str
    tokens: Int32[np.ndarray, " tokens"]  # without special tokens, unless its text spells one
    ordinary: int  # number of tokens that are not special
    ngrams: duplicates.NGrams = field(repr=False)


def split(corpus: Corpus, tokenizer: Tokenizer, *, tokens: int, seed: int) -> dict[HalfName, list[Document]]:
    """The first held-out documents with `tokens` ordinary tokens, both halves together.

    Raises UsageError where there are fewer, or one half has none.
    """
    halves: dict[HalfName, list[Document]] = {half: [] for half in HALVES}
    documents, missing = _encoded(corpus.documents("held_out"), tokenizer), tokens
    while missing > 0:
        more = list(_with_tokens(documents, missing))
        for document in more:
            halves[half_of(document.text, seed)].append(document)
        known = duplicates.union(document.ngrams for document in halves["fit"])
        halves["test"] = [document for document in halves["test"] if not duplicates.repeats(document.ngrams, known)]
        missing = tokens - sum(document.ordinary for half in HALVES for document in halves[half])
        if missing > 0 and not more:
            _refuse(tokens, tokens - missing)
    if empty := [half for half in HALVES if not halves[half]]:
        raise UsageError(f"tokens={tokens}: no document is in the half {empty[0]} of the held-out text; write more tokens, "
                         "another seed, or hold out more documents with text.held_out")
    return halves


def half_of(text: str, seed: int) -> HalfName:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return HALVES[hashlib.sha256(digest + str(seed).encode()).digest()[0] & 1]


def _refuse(asked: int, available: int) -> None:
    fix = f"write tokens={available}, or " if available else ""
    raise UsageError(f"tokens={asked}: the held-out text has {available:,} ordinary tokens for a study; {fix}hold out more "
                     "documents with text.held_out, which is another sweep")


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Document]:
    """Calibration documents that share passages with evaluation are empty, and are left out."""
    special, kept = np.array(sorted(tokenizer.special)), filter(None, texts)
    while batch := list(itertools.islice(kept, BATCH)):
        for text, ids in zip(batch, tokenizer.encode(batch), strict=True):
            tokens = np.array(ids, np.int32)
            if ordinary := int((~np.isin(tokens, special)).sum()):
                yield Document(text, tokens, ordinary, duplicates.ngrams(tokens))


def _with_tokens(documents: Iterator[Document], wanted: int) -> Iterator[Document]:
    """The next whole documents, until they have so many ordinary tokens together."""
    while wanted > 0 and (document := next(documents, None)) is not None:
        wanted -= document.ordinary
        yield document
