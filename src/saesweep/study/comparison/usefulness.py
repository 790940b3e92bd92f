"""Does what is good in FVU go with what is good for use?

Spearman's rank correlation between FVU and a score of use (probing, absorption) over the points of the curves at one hook
point: a point is an architecture at a target L0, the mean over its seeds, since seeds are not independent observations.

    atanh(r) ± 1.96 sqrt((1 + r^2 / 2) / (n - 3))               Bonett and Wright 2000

which covers the true value in 95 to 96% of the draws from MIN_POINTS on (tests/test_study_coverage.py). Both depend on L0,
so the correlation with log L0 taken out of both ranks is beside it (partial correlation, one point less). A correlation
says nothing about causes.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray as Array
from scipy import stats

from saesweep.report.intervals import LEVEL
from saesweep.storage.sweep_table import targets

MIN_POINTS = 8


def correlations(saes: pd.DataFrame, value: Array, better: int) -> dict[str, Any]:
    """saes: trained SAEs at one hook point; value: the score of each, NaN where missing. Empty where there are few points.

    `r` is above 0 where points of lower FVU have the better score.
    """
    points = pd.DataFrame({"arch": saes["arch"].to_numpy(), "target": targets(saes).to_numpy(), "value": value * better,
                           "good": -saes["fvu"].to_numpy(float), "x": np.log(saes["l0"].to_numpy(float))})
    means = points.dropna().groupby(["arch", "target"]).agg("mean")
    value_, good, x = (stats.rankdata(means[key].to_numpy(float)) for key in ("value", "good", "x"))
    if len(x) < MIN_POINTS or np.ptp(value_) == 0 or np.ptp(good) == 0:
        return {}
    found = {"points": len(x), **_interval(_pearson(value_, good), len(x))}
    return found | {f"at_equal_l0_{key}": end for key, end in _partial(value_, good, x).items()}


def _pearson(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _interval(r: float, n: int) -> dict[str, float]:
    r_ = min(max(r, -1 + 1e-9), 1 - 1e-9)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt((1 + r_**2 / 2) / (n - 3))
    return {"r": r, "low": math.tanh(math.atanh(r_) - half), "high": math.tanh(math.atanh(r_) + half)}


def _partial(value: Array, good: Array, x: Array) -> dict[str, float]:
    """Empty where there are too few points, or L0 explains one of them wholly."""
    if len(x) <= MIN_POINTS or np.ptp(x) == 0:
        return {}
    a, b = (one - np.polyval(np.polyfit(x, one, 1), x) for one in (value, good))
    if min(float(np.square(one).sum()) for one in (a, b)) < 1e-9:
        return {}
    return _interval(_pearson(a, b), len(x) - 1)
