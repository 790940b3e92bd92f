"""Shares and differences of shares, with 95% intervals that hold for few ratings.

    wilson     (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)                                Wilson 1927
    newcombe   d - sqrt((p1 - l1)² + (u2 - p2)²)  to  d + sqrt((u1 - p1)² + (p2 - l2)²),  d = p1 - p2    Newcombe 1998

l and u are the ends of Wilson's interval of each share. A share may be a mean of shares: a feature that several people
rated counts once, with its share of yes, which makes the interval too wide rather than too narrow.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from saesweep.report.intervals import LEVEL


class Estimate(NamedTuple):
    """A number with the ends of its 95% interval; nan where there is nothing to estimate it from."""

    value: float
    low: float
    high: float


NOTHING = Estimate(math.nan, math.nan, math.nan)
Z = float(stats.norm.ppf((1 + LEVEL) / 2))


def percentile(value: float, draws: Float[np.ndarray, " draws"]) -> Estimate:
    """The interval that holds the middle 95% of bootstrap draws, of which those that are nan do not count."""
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def wilson(share: float, n: int) -> Estimate:
    """The interval of a share of n independent features."""
    if n == 0:
        return NOTHING
    middle = share + Z**2 / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return Estimate(share, (middle - half) / scale, (middle + half) / scale)


def newcombe(a: Estimate, b: Estimate) -> Estimate:
    """The difference a - b of two independent shares with Wilson's intervals."""
    gap = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(gap, gap - below, gap + above)


def half_width(n: int, share: float) -> float:
    """Half of the interval of a difference between two shares near `share`, each of n features."""
    return Z * _error(n, share)


def detectable(n: int, share: float, power: float) -> float:
    """The difference whose interval excludes 0 in `power` of the studies with n features a side."""
    return (Z + float(stats.norm.ppf(power))) * _error(n, share)


def _error(n: int, share: float) -> float:
    return math.sqrt(2 * share * (1 - share) / n) if n else math.inf
