"""The value of a curve at a given L0: measured there, or interpolated between neighbours, with a bound on the error.

A curve is a set of points (log L0, value). It has a value at an L0 where

    measured       a point lies within MATCH of it: its value, moved along the curve to that L0
    interpolated   it lies between two points at most MAX_GAP apart and a third point is close enough

Three close points give a parabola through them; two give a line. The error bound is

    interpolated                 the largest distance of the parabola from the lines through neighbouring points
    measured, of three points    twice the distance from the lines through the point, plus a quarter of the move
    measured, of two points      the whole move along their line
    measured, of one point       MAX_SLOPE times the distance in log L0; the value is not moved

Other points at the same L0 add their distance from the value. A wider gap, or an L0 beyond the ends, has no value.
"""
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

MATCH = 0.05  # two L0 within 5% are the same
MAX_GAP = 2.25  # ratio of two L0: targets that double, each missed by up to MATCH
MIN_GAP = 1.15  # ratio of two L0: the slope between closer points is mostly noise
MAX_SLOPE = 2.0  # |d value / d log L0| in units of the value's scale, where the slope is unknown


class MatchedValue(NamedTuple):
    rows: Float[Array, " rows"]  # the value at the L0, per row of the input
    shares: dict[int, float]  # weight of each point in the value
    error: float  # bound on the interpolation error
    measured: int | None  # the point measured at this L0; None: interpolated
    slope: float  # d value / d log L0; 0 where unknown


def value_at(
    log_l0: Float[Array, "rows points"], value: Float[Array, "rows points"], scale: Float[Array, " points"], wanted: float
) -> MatchedValue | None:
    """The value at log L0 = wanted; None where the curve has none.

    Row 0 is the measurement and selects the points that are used; the other rows are jackknife replicates.
    scale: of each point's value, in which MAX_SLOPE is measured.
    """
    x, y = log_l0[0], value[0]
    nearest, used = int(np.abs(x - wanted).argmin()), _neighbours(x, wanted)
    distance = abs(float(x[nearest]) - wanted)
    measured = nearest if distance <= math.log(1 + MATCH) else None
    if measured is None and not (len(used) == 3 and x[used[0]] < wanted < x[used[-1]]):
        return None
    if len(used) == 1:
        if distance > math.log(1 + MATCH) / 2:
            return None
        rows, shares, error, slope = value[:, nearest], [1.0], MAX_SLOPE * distance * float(scale[nearest]), 0.0
    else:
        weights = lagrange_weights(log_l0[:, used], wanted)
        rows, shares = (weights * value[:, used]).sum(1), weights[0].tolist()
        lines = {pair: _line(x, y, pair, wanted) for pair in pairwise(used)}
        slope = min(lines.values(), key=lambda line: abs(line[0] - float(rows[0])))[1]
        error = _curvature_error(float(rows[0]), float(y[nearest]), lines, measured)
    same_l0 = [i for i in range(len(x)) if i not in used and abs(x[i] - wanted) <= math.log(1 + MATCH)]
    error += max((abs(float(y[i] + slope * (wanted - x[i]) - rows[0])) for i in same_l0), default=0.0)
    return MatchedValue(rows, dict(zip(used, shares, strict=True)), error, measured, slope)


def _curvature_error(value: float, nearest: float, lines: Mapping[Any, tuple[float, float]], measured: int | None) -> float:
    """lines: (height, slope) by pair of neighbours. nearest: the value of the nearest point."""
    if len(lines) == 1:
        return abs(value - nearest)
    if measured is None:
        return max(abs(value - height) for height, _ in lines.values())
    heights = [height for pair, (height, _) in lines.items() if measured in pair]
    return 2 * max(abs(value - height) for height in heights) + abs(value - nearest) / 4


def _neighbours(x: Float[Array, " points"], wanted: float) -> list[int]:
    """Up to three points around `wanted`, in order of x: each between MIN_GAP and MAX_GAP from the nearest other one."""
    first, *others = sorted(range(len(x)), key=lambda i: abs(x[i] - wanted))
    chosen = [first]
    for i in others:
        gap = min(abs(x[i] - x[j]) for j in chosen)
        if len(chosen) < 3 and math.log(MIN_GAP) <= gap <= math.log(MAX_GAP):
            chosen.append(i)
    return sorted(chosen, key=lambda i: x[i])


def _line(x: Float[Array, " points"], y: Float[Array, " points"], ends: tuple[int, int], wanted: float) -> tuple[float, float]:
    """Its height at `wanted`, and its slope."""
    i, j = ends
    slope = float((y[j] - y[i]) / (x[j] - x[i]))
    return float(y[i]) + slope * (wanted - float(x[i])), slope


def lagrange_weights(x: Float[Array, "rows used"], wanted: float) -> Float[Array, "rows used"]:
    """The weight of each value in the polynomial through all points of a row, evaluated at `wanted`."""
    weights = np.ones_like(x)
    for j in range(x.shape[1]):
        for other in range(x.shape[1]):
            if other != j:
                weights[:, j] *= (wanted - x[:, other]) / (x[:, j] - x[:, other])
    return weights
