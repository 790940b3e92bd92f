"""How sure a comparison is: 95% intervals, from seeds or from the held-out documents.

With several seeds that all curves have, Student's interval of log ratios paired by seed. With one it is a bootstrap over
the held-out documents, with the same draws for all SAEs: it says how much hangs on the text, not on the seed.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array
from scipy import stats

DRAWS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Samples:
    """l0 and value of every point, [draws, points]: row 0 as it was measured, the others with documents drawn anew."""

    l0: Array
    value: Array
    text: Array  # [points]: the number of the text that each was measured on; -1: unknown
    documents: Array  # [points]: how many of that text the value was measured on; 0: unknown, or too few to draw from

    @staticmethod
    def of(points: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str) -> Samples:
        """Where there are no sums by document, the draws are NaN."""
        estimates = [points[key].to_numpy() for key in ("l0", measure)]
        l0, value = (np.concatenate([x[None], np.full((DRAWS, len(x)), np.nan)]) for x in estimates)
        text, count, known = np.full(len(points), -1), np.zeros(len(points), int), list[pd.DataFrame]()
        for i, own in enumerate(documents):
            if own is not None and not any(_same(own, other, measure) for other in known):
                known.append(own)
            text[i] = next((n for n, other in enumerate(known) if own is not None and _same(own, other, measure)), -1)
        for number in range(len(known)):
            there = np.flatnonzero(text == number)
            if len(there) and (drawn := _drawn([documents[i] for i in there], measure)) is not None:
                l0[1:, there], value[1:, there], count[there] = drawn
        return Samples(l0, value, text, count)


def _drawn(documents: Sequence[pd.DataFrame], measure: str) -> tuple[Array, Array, int] | None:
    """l0 and value, [draws, points], of points measured on the same documents, and the number of these."""
    first = documents[0]
    read = np.full(len(first), True) if measure == "fvu" else first["scored"].to_numpy() > 0
    if read.sum() < 2:
        return None
    weights = _weights(read)
    tokens = weights @ first["tokens"].to_numpy()
    l0 = weights @ _columns(documents, "active") / tokens[:, None]
    if measure == "fvu":
        return l0, weights @ _columns(documents, "error") / (weights @ _columns(documents, "variance")), int(read.sum())
    nats = _columns(documents, "nats_sae") - _columns(documents, "nats_clean")
    return l0, weights @ nats / (weights @ first["scored"].to_numpy())[:, None], int(read.sum())


def _same(a: pd.DataFrame, b: pd.DataFrame, measure: str) -> bool:
    """Measured on the same text, for all that can be seen of it."""
    keys = ["tokens"] if measure == "fvu" else ["tokens", "scored"]
    return all(key in a and key in b and a[key].equals(b[key]) for key in keys)


def _columns(documents: Sequence[pd.DataFrame], key: str) -> Array:
    return np.stack([d[key].to_numpy(float) for d in documents], axis=1)


def _weights(read: Array) -> Array:
    """How often each document is drawn, [DRAWS, documents]: those that the language model read among themselves."""
    random, weights = np.random.default_rng(0), np.zeros((DRAWS, len(read)))
    for part in (read, ~read):
        if count := part.sum():
            weights[:, part] = random.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return weights


class Replicates(NamedTuple):
    """Several curves, each as [replicates, points]: seeds, or the estimate followed by the bootstrap's draws."""

    curves: list[tuple[Array, Array]]
    seeds: bool
    said: str | None  # "3 seeds", "88 documents"

    @property
    def range(self) -> tuple[Array, Array]:
        """The lowest and the highest L0 that all of them reach; of each replicate."""
        return np.max([l0[:, 0] for l0, _ in self.curves], axis=0), np.min([l0[:, -1] for l0, _ in self.curves], axis=0)

    def estimated(self, x: Array) -> Array:
        """Those of the replicates that were trained, not drawn."""
        return x if self.seeds else x[:1]

    def estimate(self, x: Array) -> float:
        """Of all replicates."""
        return float(self.estimated(x).mean())

    def percent(self, a: Array, b: Array) -> Interval | None:
        """100 (1 - a/b) of the replicates; None where one of the values is not above zero, so that there is no ratio."""
        if min(a[0], b[0]) <= 0 or (self.seeds and min(a.min(), b.min()) <= 0):
            return None
        if min(a.min(), b.min()) <= 0:
            return Interval(100 * (1 - float(a[0] / b[0])), None, None)
        found = (student if self.seeds else percentiles)(np.log(a / b))
        estimate, high, low = (None if x is None else 100 * (1 - float(np.exp(x))) for x in found)
        return Interval(estimate, low, high)


def ascending(l0: Array, value: Array) -> tuple[Array, Array]:
    order = np.argsort(l0, axis=1, kind="stable")
    return np.take_along_axis(l0, order, 1), np.take_along_axis(value, order, 1)


def student(seeds: Array) -> Interval:
    mean = float(seeds.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(seeds) - 1) * seeds.std(ddof=1) / np.sqrt(len(seeds)))
    return Interval(mean, mean - half, mean + half)


def percentiles(draws: Array) -> Interval:
    """Row 0 is the estimate."""
    if np.isnan(draws[1:]).any() or len(draws) == 1:
        return Interval(float(draws[0]), None, None)
    low, high = np.quantile(draws[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(draws[0]), float(low), float(high))
