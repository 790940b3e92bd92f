"""Agreement between people beyond chance: 1 is perfect, 0 what chance gives. nan where all answers are the same.

    cohen          1 - sum w o / sum w e         o: observed pairs of two raters, e: products of their margins;
                                                 w = [i != j], |i - j| or (i - j)²               Cohen 1960, 1968
    fleiss         (P - Pe) / (1 - Pe)           P: share of agreeing pairs, averaged over items; Pe = sum p_j²     Fleiss 1971
    krippendorff   1 - sum d o / sum d e         o: coincidences within items, n_u answers weighted 1/(n_u - 1); e: of all
                                                 answers; ordinal d = (n_i/2 + n_(i+1) + .. + n_j/2)²    Krippendorff 2011

Categories are 0 .. k - 1.
"""
from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Weights = Literal["plain", "linear", "quadratic"]
Level = Literal["nominal", "ordinal"]


def cohen(a: Int[np.ndarray, " items"], b: Int[np.ndarray, " items"], k: int, weights: Weights) -> float:
    """Of two raters on the same items."""
    if len(a) == 0:
        return math.nan
    observed = np.zeros((k, k))
    np.add.at(observed, (a, b), 1 / len(a))
    expected = np.outer(observed.sum(1), observed.sum(0))
    apart = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    weight = {"plain": apart > 0, "linear": apart, "quadratic": apart**2}[weights]
    return _beyond_chance(float((weight * observed).sum()), float((weight * expected).sum()))


def fleiss(counts: Int[np.ndarray, "items k"]) -> float:
    """counts: how many raters gave each item each category; the same number of raters for every item, at least 2."""
    if len(counts) == 0:
        return math.nan
    raters = int(counts[0].sum())
    if raters < 2 or (counts.sum(1) != raters).any():
        raise ValueError("every item needs the same number of raters, at least 2")
    agreeing = (counts * (counts - 1)).sum(1) / (raters * (raters - 1))
    by_chance = np.square(counts.sum(0) / counts.sum())
    return _beyond_chance(1 - float(agreeing.mean()), 1 - float(by_chance.sum()))


def krippendorff(answers: Float[np.ndarray, "raters items"], k: int, level: Level) -> float:
    """Alpha of any number of raters; nan: this rater did not rate this item."""
    counts = np.stack([(answers == category).sum(0) for category in range(k)], axis=1)  # [items, k]
    counts = counts[counts.sum(1) >= 2]
    if len(counts) == 0:
        return math.nan
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(k, dtype=int)
    observed = (pairs / (counts.sum(1) - 1)[:, None, None]).sum(0)
    margin = observed.sum(0)
    expected = (np.outer(margin, margin) - np.diag(margin)) / (margin.sum() - 1)
    distance = _ordinal(margin) if level == "ordinal" else 1 - np.eye(k)
    return _beyond_chance(float((distance * observed).sum()), float((distance * expected).sum()))


def _ordinal(margin: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k k"]:
    """Squared number of answers between two categories, half of each end."""
    middle = np.cumsum(margin) - margin / 2
    return np.square(np.subtract.outer(middle, middle))


def _beyond_chance(observed: float, expected: float) -> float:
    """1 - the disagreement that was observed as a share of what chance gives."""
    return 1 - observed / expected if expected > 1e-12 else math.nan
