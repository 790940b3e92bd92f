"""Binary labels of tokens, with which latents are compared: of Python source, of any text, or none.

A document that has no labels (Python that does not parse) is not `known`: its tokens take part in no score that uses labels.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import csr_array

from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.hits import TextHalf
from saesweep.study.python_labels import python_labels
from saesweep.study.spans import Labeller, Span
from saesweep.study.text_labels import text_labels

KINDS: Mapping[str, Labeller] = {
    "python": python_labels, "text": text_labels, "none": lambda document, offsets: [],
}
COMMON = 50  # commonest tokens of the fit half that are labels of their own, with labels=text


@dataclass(frozen=True)
class HalfLabels:
    matrix: csr_array  # bool [labels, tokens]
    known: Bool[np.ndarray, " tokens"]  # in a document that has labels


@dataclass(frozen=True)
class Labels:
    """The same labels on both halves, in alphabetical order."""

    names: Sequence[str]
    fit: HalfLabels
    test: HalfLabels


def label(
    kind: str, fit: TextHalf, test: TextHalf, tokenizer: Tokenizer, *, min_tokens: int = 100, min_documents: int = 10,
) -> Labels:
    """Labels that fewer than min_tokens ordinary tokens or min_documents documents of the test half have are left out, and
    those that no token of the fit half has. Raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"labels={kind}: there are {', '.join(KINDS)}")
    numbers: dict[str, int] = {}
    found = [_Found(half, tokenizer, KINDS[kind], numbers) for half in (fit, test)]
    for token in _common_tokens(fit) if kind == "text" else []:
        for one in found:
            one.add(f"token {name_of(tokenizer, token)}", np.flatnonzero(one.half.tokens == token))
    names = sorted(numbers)
    rows = np.argsort([numbers[name] for name in names])  # from the numbers to the places in `names`
    fit_matrix, test_matrix = (one.matrix(rows) for one in found)
    documents = _count_documents(test_matrix, test)
    kept = np.flatnonzero((test_matrix.sum(1) >= min_tokens) & (documents >= min_documents) & (fit_matrix.sum(1) > 0))
    return Labels([names[number] for number in kept], HalfLabels(csr_array(fit_matrix[kept]), found[0].known),
                  HalfLabels(csr_array(test_matrix[kept]), found[1].known))


class _Found:
    """The labels of the tokens of one half, by their numbers."""

    def __init__(self, half: TextHalf, tokenizer: Tokenizer, labeller: Labeller, numbers: dict[str, int]):
        self.half, self.numbers, self.known = half, numbers, np.ones(len(half.tokens), bool)
        self.rows: list[np.ndarray] = []
        self.columns: list[np.ndarray] = []
        texts = np.flatnonzero(half.index >= 0)
        documents, starts = np.unique(half.document[texts], return_index=True)
        for number, mine in zip(documents, np.split(texts, starts[1:]), strict=True):
            document = half.documents[int(number)]
            spans = labeller(document, _offsets(tokenizer, document))
            if spans is None:
                self.known[half.document == number] = False
            elif spans:
                self._add_spans(spans, mine)

    def _add_spans(self, spans: Sequence[Span], mine: Int64[np.ndarray, " tokens"]) -> None:
        """mine: the positions of the document's tokens."""
        labels, starts, ends = zip(*spans, strict=True)
        rows = np.array([self.numbers.setdefault(name, len(self.numbers)) for name in labels])
        first, last = (np.searchsorted(self.half.index[mine], ends_) for ends_ in (starts, ends))
        lengths = last - first
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.rows.append(np.repeat(rows, lengths))
        self.columns.append(mine[np.repeat(first, lengths) + within])

    def add(self, name: str, positions: Int64[np.ndarray, " n"]) -> None:
        self.rows.append(np.full(len(positions), self.numbers.setdefault(name, len(self.numbers))))
        self.columns.append(positions)

    def matrix(self, places: Int64[np.ndarray, " labels"]) -> csr_array:
        """places: of each number its row."""
        rows, columns = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (self.rows, self.columns))
        kept = self.half.ordinary[columns]
        shape = (len(places), len(self.half.tokens))
        if not len(places):
            return csr_array(shape, dtype=bool)
        return csr_array((np.ones(kept.sum(), bool), (places[rows[kept]], columns[kept])), shape=shape)


def _offsets(tokenizer: Tokenizer, document: str) -> Int64[np.ndarray, "tokens 2"]:
    assert tokenizer.offsets is not None, "every tokenizer of lm/tokenizer.py has them"
    return np.array(tokenizer.offsets(document), np.int64).reshape(-1, 2)


def _common_tokens(half: TextHalf) -> list[int]:
    ids, counts = np.unique(half.tokens[half.ordinary], return_counts=True)
    return ids[np.argsort(-counts, kind="stable")[:COMMON]].tolist()


def name_of(tokenizer: Tokenizer, token: int) -> str:
    """A token as text that can be read: between backticks, with its blanks shown."""
    text = tokenizer.decode([token]) if tokenizer.decode else str(token)
    return f"`{text.replace(chr(10), '⏎').replace(chr(9), '→')}`"


def _count_documents(matrix: csr_array, half: TextHalf) -> Int64[np.ndarray, " labels"]:
    """In how many documents each label stands."""
    count = len(matrix.indptr) - 1
    rows = np.repeat(np.arange(count), np.diff(matrix.indptr))
    pairs = np.unique(np.stack([rows, half.document[matrix.indices].astype(np.int64)]), axis=1)
    return np.bincount(pairs[0], minlength=count)
