"""95% confidence intervals of the numbers in a comparison.

Two sources of variation each contribute a variance:

    documents   delete-one-document jackknife over the held-out documents:
                variance = (n - 1)/n  sum over documents of (estimate without it - mean of these)^2
    seeds       variance between SAEs that differ only in their seed: s^2 / seeds, for each of the two curves

    interval    estimate ± (sqrt(sum over both of (t * sqrt(variance))^2) + bound on the error of matching L0)

t is Student's quantile at the degrees of freedom of each variance, so that two seeds that agree by chance do not give a
narrow interval. The degrees of freedom of the documents use Kish's effective sample size (sum w)^2 / sum w^2, so that one
long document among short ones does not count as a large sample. The seed variances of two curves are combined by
Welch-Satterthwaite. With fewer than MIN_DOCUMENTS documents there is no interval over documents.
tests/test_interval_coverage.py simulates the coverage.
"""
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy import optimize, special

LEVEL = 0.95
MIN_DOCUMENTS = 10


class Variance(NamedTuple):
    """An estimated variance and its degrees of freedom."""

    value: float
    df: float


HalfWidth = Callable[[Sequence[Variance], float], float]  # of variances and a level


class Interval(NamedTuple):
    estimate: float
    low: float
    high: float
    p: float  # two-sided, of the null hypothesis that the number is 0


def document_variance(rows: Float[Array, " rows"], weights: Float[Array, " documents"]) -> Variance | None:
    """rows: the estimate on all documents, then without each. None where there are too few documents, or none are known."""
    if (weights > 0).sum() < MIN_DOCUMENTS or not np.isfinite(rows).all():
        return None
    left_out = rows[1:][weights > 0]
    n = len(left_out)
    variance = (n - 1) / n * float(np.square(left_out - left_out.mean()).sum())
    return Variance(variance, max(1.0, effective_sample_size(weights) - 1))


def effective_sample_size(weights: Float[Array, " documents"]) -> float:
    """Kish's: the number of documents of equal weight that give as large a sample."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def seed_variance(values: Sequence[float]) -> Variance:
    """The variance of one SAE, from several that differ in their seed."""
    return Variance(float(np.var(values, ddof=1)), len(values) - 1)


def combined(variances: Sequence[Variance]) -> Variance | None:
    """The variance of a sum of independent numbers (Welch-Satterthwaite); None of no numbers."""
    total = sum(part.value for part in variances)
    if not variances or total == 0:
        return min(variances, key=lambda part: part.df, default=None)
    return Variance(total, 1 / sum((part.value / total) ** 2 / part.df for part in variances))


def interval(
    estimate: float, variances: Iterable[Variance | None], error: float = 0.0, half_width: HalfWidth | None = None
) -> Interval | None:
    """None where no variance is known. variances: over documents and over seeds. error: bound on a systematic error.

    half_width: how variances join, the root of the sum of squares by default.
    """
    known, width = [part for part in variances if part is not None], half_width or _half_width
    if not known:
        return None
    half = width(known, LEVEL) + error
    return Interval(estimate, estimate - half, estimate + half, _p_value(abs(estimate) - error, known, width))


def _half_width(variances: Sequence[Variance], level: float) -> float:
    """stdtrit is Student's quantile, as stats.t.ppf computes it."""
    return math.hypot(*(float(special.stdtrit(part.df, (1 + level) / 2)) * math.sqrt(part.value) for part in variances))


def _p_value(distance: float, variances: Sequence[Variance], width: HalfWidth) -> float:
    """1 - the level of the interval whose half width is `distance`. stdtr is Student's distribution, as in stats.t.sf."""
    total = sum(part.value for part in variances)
    if distance <= 0 or total == 0:
        return 1.0 if distance <= 0 else 0.0
    if len(variances) == 1:
        return 2 * float(special.stdtr(variances[0].df, -distance / math.sqrt(total)))
    smallest, largest = 1e-12, 1 - 1e-9
    if width(variances, 1 - smallest) < distance:
        return smallest
    if width(variances, 1 - largest) > distance:  # such as the rounding of a difference that is 0
        return 1.0
    log_p: Any = optimize.brentq(
        lambda log: width(variances, -np.expm1(log)) - distance, math.log(smallest), math.log(largest))
    return float(np.exp(log_p))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which hypotheses are rejected at a family-wise error rate of 5% (Holm 1979)."""
    rejected = [False] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > (1 - LEVEL) / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected
