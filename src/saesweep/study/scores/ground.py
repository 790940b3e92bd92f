"""The tokens of a half on which one SAE is measured, and the activity of its latents there.

A token is counted if it is measured (ordinary, no sink) and in a document that has labels. Sums are kept by document, so that
a score can be computed again for any choice of documents (comparison/replicates.py).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.sparse import csr_array

from saesweep.study.hits import Half
from saesweep.study.scores.conditions import Conditions

Documents = Float[np.ndarray, " documents"]


class Ground:
    """The conditions on the counted tokens of a half."""

    def __init__(self, of: Conditions, half: Half):
        self.of, self.half = of, half
        self.counted: Bool[np.ndarray, " tokens"] = half.measured & of.known
        self.n = int(self.counted.sum())
        self.holds: Int64[np.ndarray, " conditions"] = of.count(np.flatnonzero(self.counted))
        self._pairs: dict[int, Int64[np.ndarray, " conditions"]] = {}

    def pairs(self, condition: int) -> Int64[np.ndarray, " conditions"]:
        """On how many of the tokens that meet a condition each other one holds."""
        if condition not in self._pairs:
            mine = self.of.holding(condition)
            self._pairs[condition] = self.of.count(mine[self.counted[mine]])
        return self._pairs[condition]

    def activity(self, latent: int) -> Activity:
        """Raises KeyError where its activations were not kept."""
        positions, values = self.half.hits.of(latent)
        kept = self.counted[positions]
        return Activity(self.n, positions[kept], values[kept].astype(np.float64))

    @property
    def documents(self) -> int:
        return len(self.half.text.documents)

    def by_document(self, positions: Int64[np.ndarray, " n"], values: Float[np.ndarray, " n"] | None = None) -> Documents:
        """The number of the positions in each document, or the sum of their values."""
        return np.bincount(self.half.text.document[positions], values, minlength=self.documents).astype(np.float64)

    def detected(self, found: Int64[np.ndarray, " n"], true: Int64[np.ndarray, " m"]) -> tuple[Documents, Documents, Documents]:
        """tp, fp and fn of the tokens that are found, where `true` ones should be."""
        each = np.intersect1d(found, true, assume_unique=True), found, true
        tp, active, positive = map(self.by_document, each)
        return tp, active - tp, positive - tp

    def by_label(
        self, parts: Sequence[Sequence[Documents]], names: Sequence[str] = ("tp", "fp", "fn")
    ) -> dict[str, Float[np.ndarray, "labels documents"]]:
        """By name the sums of each label by document. parts: of each label those of each name."""
        columns = np.array(parts).reshape(len(parts), len(names), self.documents).transpose(1, 0, 2)
        return dict(zip(names, columns, strict=True))

    @cached_property
    def tokens(self) -> Documents:
        """The number of counted tokens."""
        return self.by_document(np.flatnonzero(self.counted))

    @cached_property
    def dense_tokens(self) -> Documents:
        """The number of counted tokens among those on which all latents are kept."""
        return self.by_document(self.half.dense[self.counted[self.half.dense]])

    @cached_property
    def kinds(self) -> csr_array:
        """How often each token id is counted in each document; the last column: ids that are not in the fit half."""
        positions = np.flatnonzero(self.counted)
        ids = len(self.of.ids)
        kind = self.of.kind[positions]
        pairs = self.half.text.document[positions], np.where(kind < 0, ids, kind)
        return csr_array((np.ones(len(positions)), pairs), shape=(self.documents, ids + 1))

    def holding(self, condition: int) -> Documents:
        """On how many counted tokens a condition holds."""
        mine = self.of.holding(condition)
        return self.by_document(mine[self.counted[mine]])


@dataclass(frozen=True)
class Activity:
    """The counted tokens on which a latent is active, of `n`."""

    n: int
    positions: Int64[np.ndarray, " fires"]
    values: Float[np.ndarray, " fires"]

    @cached_property
    def total(self) -> float:
        return float(self.values.sum())

    @cached_property
    def squares(self) -> float:
        return float(np.square(self.values).sum())
