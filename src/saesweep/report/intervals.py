"""How sure a number of a comparison is: 95% intervals over what was varied.

Two things vary, and each adds a variance:

    documents   the number of all held-out documents, and of all but one in turn (the delete-one-document jackknife):
                variance = (n - 1)/n  sum over documents of (number without it - mean of these)^2
    seeds       spread between SAEs that differ in nothing but their seed: s^2 / seeds, for each of the two curves

    interval    estimate ± (sqrt(sum over both of (t * sqrt(variance))^2) + the error that a match in L0 may have)

t is Student's, of each one's degrees of freedom, so that two seeds that happen to be alike do not make an interval narrow.
Documents count by their weight: there are (sum w)^2 / sum w^2 of them (Kish), so that one long document among short ones is
no large sample. The seeds of two curves are taken together (Welch and Satterthwaite).
Below MIN_DOCUMENTS there is no interval over documents. The coverage is simulated in tests/test_coverage.py.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy import optimize, stats

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


def together(variances: Sequence[Variance]) -> Variance | None:
    """Of a sum of independent numbers (Welch and Satterthwaite)."""
    total = sum(part.value for part in variances)
    if not variances or total == 0:
        return min(variances, key=lambda part: part.df, default=None)
    return Variance(total, 1 / sum((part.value / total) ** 2 / part.df for part in variances))


def interval(estimate: float, variances: Iterable[Variance | None], error: float = 0.0) -> Interval | None:
    """variances: of the documents and of the seeds; None where one was not varied. error: how far it may be off besides.

    None where nothing was varied.
    """
    known = [part for part in variances if part is not None]
    if not known:
        return None
    half = _half(known, LEVEL) + error
    return Interval(estimate, estimate - half, estimate + half, _p(abs(estimate) - error, known))


def _half(variances: Sequence[Variance], level: float) -> float:
    return math.hypot(*(float(stats.t.ppf((1 + level) / 2, part.df)) * math.sqrt(part.value) for part in variances))


def _p(beyond: float, variances: Sequence[Variance]) -> float:
    """1 - the level of the interval that just reaches so far."""
    total = sum(part.value for part in variances)
    if beyond <= 0 or total == 0:
        return 1.0 if beyond <= 0 else 0.0
    if len(variances) == 1:
        return 2 * float(stats.t.sf(beyond / math.sqrt(total), variances[0].df))
    smallest = 1e-12
    if _half(variances, 1 - smallest) < beyond:
        return smallest
    return float(np.exp(optimize.brentq(lambda log: _half(variances, -np.expm1(log)) - beyond, math.log(smallest), -1e-9)))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of several hypotheses are rejected together, at 5% for one of them wrongly (Holm 1979)."""
    rejected = [False] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > (1 - LEVEL) / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected
