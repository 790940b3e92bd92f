"""The conditions with which firing is compared: a token has a label, is a certain token, follows a certain token.

They are numbered: first the labels, then the tokens that stand at least SUPPORT times in the fit half, then the same tokens as
the one before, in the same block. The numbers are the same in both halves.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.sparse import csr_array

from saesweep.study.hits import TextHalf
from saesweep.study.labels import HalfLabels, Labels

SUPPORT = 5


@dataclass(frozen=True)
class Conditions:
    """Of one half, for all SAEs. A row is a token or a condition, in two matrices that are each other's transpose."""

    names: Sequence[str]  # of the labels
    ids: Int64[np.ndarray, " ids"]  # all token ids of the fit half, ascending
    common: Int64[np.ndarray, " common"]  # which of these are conditions
    kind: Int64[np.ndarray, " tokens"]  # of each token its place in `ids`; -1: it is not in the fit half
    by_token: csr_array  # bool [tokens, conditions]
    by_condition: csr_array
    known: Bool[np.ndarray, " tokens"]

    @property
    def labels(self) -> int:
        return len(self.names)

    def __len__(self) -> int:
        return self.labels + 2 * len(self.common)

    def holding(self, condition: int) -> Int64[np.ndarray, " n"]:
        """The positions at which a condition holds, ascending."""
        start, end = self.by_condition.indptr[condition : condition + 2]
        return self.by_condition.indices[start:end].astype(np.int64)

    def count(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " conditions"]:
        """On how many of some tokens each condition holds."""
        return np.bincount(self.by_token[positions].indices, minlength=len(self))

    def add_up(
        self, positions: Int64[np.ndarray, " n"], values: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " conditions"]:
        """The sum of the values of the tokens on which each condition holds."""
        rows = self.by_token[positions]
        return np.bincount(rows.indices, np.repeat(values, np.diff(rows.indptr)), minlength=len(self)).astype(np.float64)


def conditions(fit: TextHalf, test: TextHalf, labels: Labels) -> tuple[Conditions, Conditions]:
    """Those of the two halves."""
    ids, counts = np.unique(fit.tokens[fit.ordinary], return_counts=True)
    common = np.flatnonzero(counts >= SUPPORT)
    halves = ((fit, labels.fit), (test, labels.test))
    first, second = (_of_half(half, mine, labels.names, ids.astype(np.int64), common) for half, mine in halves)
    return first, second


def _of_half(
    half: TextHalf, labels: HalfLabels, names: Sequence[str], ids: Int64[np.ndarray, " ids"],
    common: Int64[np.ndarray, " common"],
) -> Conditions:
    kind = np.full(len(half.tokens), -1, np.int64)
    if len(ids):
        nearest = np.minimum(np.searchsorted(ids, half.tokens), len(ids) - 1)
        kind = np.where(ids[nearest] == half.tokens, nearest, -1)
    number = np.full(len(ids) + 1, -1, np.int64)  # the last is that of kind -1
    number[common] = np.arange(len(common))
    own = number[kind]
    before = np.concatenate([[-1], np.where(half.block[1:] == half.block[:-1], own[:-1], -1)])[: len(own)]
    of_labels = labels.matrix.tocoo()
    rows, columns = [of_labels.col], [of_labels.row]
    for place, found in enumerate((own, before)):
        at = np.flatnonzero(found >= 0)
        rows.append(at)
        columns.append(len(names) + place * len(common) + found[at])
    pairs = np.concatenate(rows), np.concatenate(columns)
    shape = (len(half.tokens), len(names) + 2 * len(common))
    by_token = csr_array((np.ones(len(pairs[0]), bool), pairs), shape=shape)
    return Conditions(names, ids, common, kind, by_token, csr_array(by_token.T), labels.known)
