"""The value of a curve at a given L0: measured there, or interpolated between neighbours, with a bound on the error.

A curve is a set of points (log L0, value). It has a value at an L0 where

    measured       a point lies within reach of it: its value, moved along the curve to that L0
    interpolated   it lies between two points at most MAX_GAP apart and a third point is close enough

Three close points give a parabola through them; two give a line; one is moved along a slope taken from elsewhere, of which
a range is known (slopes.py). The error bound is

    interpolated                 the largest distance of the parabola from the lines through neighbouring points
    measured, of three points    twice the distance from the lines through the point, plus a quarter of the move
    measured, of two points      the whole move along their line
    measured, of one point       half the width of the range of slopes times the distance in log L0;
                                 MAX_SLOPE times the distance where no range is known: the value is not moved

Other points at the same L0 add their distance from the value. A wider gap, or an L0 beyond the ends, has no value.
"""
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

MATCH = 0.05  # two L0 within 5% are the same
TOLERANCE = 0.15  # points of two curves up to 15% apart are compared, halfway between them
MAX_GAP = 2.25  # ratio of two L0: targets that double, each missed by up to MATCH
MIN_GAP = 1.15  # ratio of two L0: the slope between closer points is mostly noise
MAX_SLOPE = 2.0  # |d value / d log L0| in units of the value's scale, where the slope is unknown


class SlopeRange(NamedTuple):
    """Ends of a range of d value / d log L0, in units of the value's scale."""

    low: float
    high: float
    source: str  # of which curves

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


class Secant(NamedTuple):
    """A line through neighbouring points of a curve."""

    log_l0: float  # halfway between them
    slope: float  # in units of the value's scale


UNKNOWN = SlopeRange(-MAX_SLOPE, MAX_SLOPE, "unknown")


class MatchedValue(NamedTuple):
    rows: Float[Array, " rows"]  # the value at the L0, per row of the input
    shares: dict[int, float]  # weight of each point in the value
    error: float  # bound on the interpolation error
    measured: int | None  # the point measured at this L0; None: interpolated
    slope: float  # d value / d log L0; 0 where unknown
    slope_of: str  # "own", or the source of the range


def value_at(
    log_l0: Float[Array, "rows points"], value: Float[Array, "rows points"], scale: Float[Array, " points"], wanted: float,
    slopes: SlopeRange = UNKNOWN, reach: float | None = None,
) -> MatchedValue | None:
    """The value at log L0 = wanted; None where the curve has none.

    Row 0 is the measurement and selects the points that are used; the other rows are jackknife replicates.
    scale: of each point's value, in which slopes are measured. slopes: of a point without neighbours.
    reach: the largest distance in log L0 of a measured point; None: that of MATCH, or half of it where the slope is unknown.
    """
    x, near = log_l0[0], reach or math.log(1 + MATCH)
    nearest, used = int(np.abs(x - wanted).argmin()), _neighbours(x, wanted)
    distance = abs(float(x[nearest]) - wanted)
    measured = nearest if distance <= near else None
    if measured is None and not (len(used) == 3 and x[used[0]] < wanted < x[used[-1]]):
        return None
    if len(used) == 1 and slopes is UNKNOWN and distance > near / 2:
        return None
    found = _through(log_l0, value, used, wanted, measured) if len(used) > 1 else _moved(log_l0, value, scale, wanted, slopes)
    same_l0 = [i for i in range(len(x)) if i not in used and abs(x[i] - wanted) <= near]
    lines = (float(value[0, i] + found.slope * (wanted - x[i])) for i in same_l0)
    return found._replace(error=found.error + max((abs(height - float(found.rows[0])) for height in lines), default=0.0))


def _moved(log_l0: Array, value: Array, scale: Array, wanted: float, slopes: SlopeRange) -> MatchedValue:
    """The nearest point, moved along the middle of the range of slopes."""
    i = int(np.abs(log_l0[0] - wanted).argmin())
    slope, error = (s * float(scale[i]) for s in (slopes.middle, slopes.half_width))
    rows = moved_along(log_l0[:, i], value[:, i], slope, wanted)
    return MatchedValue(rows, {i: 1.0}, error * abs(float(log_l0[0, i]) - wanted), i, slope, slopes.source)


def moved_along(
    log_l0: Float[Array, " rows"], value: Float[Array, " rows"], slope: float, wanted: float
) -> Float[Array, " rows"]:
    """Each row moved from its own L0: how L0 varies between documents enters the interval."""
    return value + slope * (wanted - log_l0) if slope else value


def _through(log_l0: Array, value: Array, used: Sequence[int], wanted: float, measured: int | None) -> MatchedValue:
    """The line or parabola through two or three points."""
    x, y = log_l0[0], value[0]
    weights = lagrange_weights(log_l0[:, used], wanted)
    rows, shares = (weights * value[:, used]).sum(1), weights[0].tolist()
    lines = {pair: _line(x, y, pair, wanted) for pair in pairwise(used)}
    slope = min(lines.values(), key=lambda line: abs(line[0] - float(rows[0])))[1]
    error = _curvature_error(float(rows[0]), float(y[np.abs(x - wanted).argmin()]), lines, measured)
    return MatchedValue(rows, dict(zip(used, shares, strict=True)), error, measured, slope, "own")


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


def secants(x: Float[Array, " points"], y: Float[Array, " points"], scale: Float[Array, " points"]) -> list[Secant]:
    """Through neighbours between MIN_GAP and MAX_GAP apart. x: ascending."""
    near = [(i, i + 1) for i in range(len(x) - 1) if math.log(MIN_GAP) <= x[i + 1] - x[i] <= math.log(MAX_GAP)]
    units = {(i, j): math.sqrt(float(scale[i] * scale[j])) for i, j in near}
    return [Secant(float(x[i] + x[j]) / 2, _line(x, y, (i, j), 0.0)[1] / unit) for (i, j), unit in units.items() if unit > 0]


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
