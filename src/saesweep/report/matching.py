"""The value of a curve at an L0: measured there, or between near neighbours with the error that this may have.

A curve is some points (L0, value), by log L0. At an L0 it has a value where

    own        a point is at most MATCH away: its value, moved along the curve to that L0
    between    it lies between two points at most NEAR apart, and a third one is near: interpolated

Three near points give a parabola through them. Between two points the error is how far it is from the straight lines
through each two neighbours: a curve that bends one way lies between them. At an own point it is twice the parabola's
distance from the lines through that point, and a quarter of the move. With two points, an own one is moved along their line,
and the error is the whole move. With one it is not moved: the error is what a slope of STEEPEST would do. Other points of the
curve at the same L0 add how far they are apart. Nothing else is compared: not what lies in a wider hole, and not what lies
further beyond an end.
"""
from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

MATCH = 0.05  # of L0
NEAR = 2.25  # times the L0: targets that double, each missed by up to MATCH
APART = 1.15  # times the L0: closer points say more of their noise than of a slope
STEEPEST = 2.0  # |d value / d log L0| in units of the value's scale, where no slope is known


class Matched(NamedTuple):
    rows: Float[Array, " rows"]  # the value at the L0
    parts: dict[int, float]  # how much of each point's value is in it
    error: float  # that the value may have besides
    own: int | None  # the point that was measured there; None: interpolated
    slope: float  # d value / d log L0 there; 0 where it is not known


def value_at(
    log_l0: Float[Array, "rows points"], value: Float[Array, "rows points"], scale: Float[Array, " points"], wanted: float
) -> Matched | None:
    """At log L0 = wanted. Row 0 is what was measured and says which points are used; the others vary the documents.

    scale: of each point's value, for what a slope that nobody knows may be.
    """
    x, y = log_l0[0], value[0]
    nearest, used = int(np.abs(x - wanted).argmin()), _around(x, wanted)
    away = abs(float(x[nearest]) - wanted)
    own = nearest if away <= math.log(1 + MATCH) else None
    if own is None and not (len(used) == 3 and x[used[0]] < wanted < x[used[-1]]):
        return None
    if len(used) == 1:
        if away > math.log(1 + MATCH) / 2:
            return None
        rows, parts, error, slope = value[:, nearest], [1.0], STEEPEST * away * float(scale[nearest]), 0.0
    else:
        shares = lagrange(log_l0[:, used], wanted)
        rows, parts = (shares * value[:, used]).sum(1), shares[0].tolist()
        lines = {pair: _line(x, y, pair, wanted) for pair in pairwise(used)}
        slope = min(lines.values(), key=lambda line: abs(line[0] - float(rows[0])))[1]
        if len(used) == 2:
            error = abs(float(rows[0]) - float(y[nearest]))
        elif own is None:
            error = max(abs(float(rows[0]) - height) for height, _ in lines.values())
        else:
            moved, heights = float(rows[0] - y[own]), [height for pair, (height, _) in lines.items() if own in pair]
            error = 2 * max(abs(float(rows[0]) - height) for height in heights) + abs(moved) / 4
    same_l0 = [i for i in range(len(x)) if i not in used and abs(x[i] - wanted) <= math.log(1 + MATCH)]
    error += max((abs(float(y[i] + slope * (wanted - x[i]) - rows[0])) for i in same_l0), default=0.0)
    return Matched(rows, dict(zip(used, parts, strict=True)), error, own, slope)


def _around(x: Float[Array, " points"], wanted: float) -> list[int]:
    """Up to three points around `wanted`, in order: each near another one of them, and none too close to it."""
    first, *others = sorted(range(len(x)), key=lambda i: abs(x[i] - wanted))
    chosen = [first]
    for i in others:
        gap = min(abs(x[i] - x[j]) for j in chosen)
        if len(chosen) < 3 and math.log(APART) <= gap <= math.log(NEAR):
            chosen.append(i)
    return sorted(chosen, key=lambda i: x[i])


def _line(x: Float[Array, " points"], y: Float[Array, " points"], ends: tuple[int, int], wanted: float) -> tuple[float, float]:
    """Its height at `wanted`, and its slope."""
    i, j = ends
    slope = float((y[j] - y[i]) / (x[j] - x[i]))
    return float(y[i]) + slope * (wanted - float(x[i])), slope


def lagrange(x: Float[Array, "rows used"], wanted: float) -> Float[Array, "rows used"]:
    """The share of each value in the polynomial through all of a row, at `wanted`."""
    shares = np.ones_like(x)
    for j in range(x.shape[1]):
        for other in range(x.shape[1]):
            if other != j:
                shares[:, j] *= (wanted - x[:, other]) / (x[:, j] - x[:, other])
    return shares
