"""How sure a number of a comparison is: 95% intervals over what was varied.

Two things vary, and each adds a variance:

    documents   the number of all held-out documents, and of all but one in turn (the delete-one-document jackknife):
                variance = (n - 1)/n  sum over documents of (number without it - mean of these)^2
    seeds       spread between SAEs that differ in nothing but their seed: s^2 / seeds, for each of the two curves

    interval    estimate ± (t * sqrt(sum of the variances) + the error that an interpolation may have)

t is Student's, of the degrees of freedom that the variances have together (Welch and Satterthwaite). Documents count by
their weight: there are (sum w)^2 / sum w^2 of them (Kish), so that one long document among short ones is no large sample.
Below MIN_DOCUMENTS there is no interval over documents. The coverage is simulated in tests/test_coverage.py.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy import stats

LEVEL = 0.95
MIN_DOCUMENTS = 10


class Variance(NamedTuple):
    """Of a number, with the degrees of freedom that it was estimated with."""

    value: float
    df: float


class Interval(NamedTuple):
    estimate: float
    low: float
    high: float
    p: float  # two-sided, of the hypothesis that the number is 0

    def scaled(self, factor: float) -> Interval:
        """factor > 0"""
        return Interval(self.estimate * factor, self.low * factor, self.high * factor, self.p)


def of_documents(rows: Float[Array, " rows"], weights: Float[Array, " documents"]) -> Variance | None:
    """rows: the number of all documents, then of all but one; None where the documents are too few, or unknown."""
    if (weights > 0).sum() < MIN_DOCUMENTS or not np.isfinite(rows).all():
        return None
    left_out = rows[1:][weights > 0]
    n = len(left_out)
    return Variance((n - 1) / n * float(np.square(left_out - left_out.mean()).sum()), max(1.0, effective(weights) - 1))


def effective(weights: Float[Array, " documents"]) -> float:
    """How many documents of equal weight are as many as these."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def of_seeds(values: Sequence[float]) -> Variance:
    """Of one SAE, from several that differ in their seed."""
    return Variance(float(np.var(values, ddof=1)), len(values) - 1)


def interval(estimate: float, variances: Iterable[Variance], error: float = 0.0) -> Interval | None:
    """error: how far the estimate may be off besides, at most; None where nothing was varied."""
    variances = list(variances)
    if not variances:
        return None
    total = sum(part.value for part in variances)
    if total == 0:
        beyond = abs(estimate) > error
        return Interval(estimate, estimate - error, estimate + error, 0.0 if beyond else 1.0)
    df = total**2 / sum(part.value**2 / part.df for part in variances)
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * total**0.5 + error
    p = 2 * float(stats.t.sf(max(0.0, abs(estimate) - error) / total**0.5, df))
    return Interval(estimate, estimate - half, estimate + half, p)


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of several hypotheses are rejected together, at 5% for one of them wrongly (Holm 1979)."""
    rejected = [False] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > (1 - LEVEL) / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected
