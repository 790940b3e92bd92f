"""The value of a curve at an L0: measured there, or between near neighbours with the error that this may have.

A curve is some points (L0, value), by log L0. At an L0 it has a value where

    own        a point is at most MATCH away: its value, moved along the curve to that L0
    between    it lies between two points at most NEAR apart, and a third one is near: interpolated

Three near points give a parabola through them, and the error is how far it is from the straight line: what the curvature
of the curve itself does there. With two, an own point is moved along the straight line, and the error is the whole move.
With one it is not moved: the error is what a slope of STEEPEST would do. Nothing else is compared: not what lies in a
wider hole, and not what lies beyond the ends.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

MATCH = 0.05  # of L0
NEAR = 2.25  # times the L0: targets that double, each missed by up to MATCH
APART = 1.15  # times the L0: closer points say more of their noise than of a slope
STEEPEST = 2.0  # |d log value / d log L0|, where no slope is known


class Matched(NamedTuple):
    rows: Float[Array, " rows"]  # the value at the L0
    parts: dict[int, float]  # how much of each point's value is in it
    error: float  # that the value may have, at most
    interpolated: bool
    slope: float  # d value / d log L0 there; 0 where it is not known


def value_at(log_l0: Float[Array, "rows points"], value: Float[Array, "rows points"], wanted: float) -> Matched | None:
    """At log L0 = wanted. Row 0 is what was measured and says which points are used; the others vary the documents."""
    x = log_l0[0]
    nearest = int(np.abs(x - wanted).argmin())
    away = abs(float(x[nearest]) - wanted)
    own, used = away <= math.log(1 + MATCH), _around(x, wanted)
    if not own and not (len(used) == 3 and x[used[0]] < wanted < x[used[-1]]):
        return None
    if len(used) == 1:
        if away > math.log(1 + MATCH) / 2:
            return None
        return Matched(value[:, nearest], {nearest: 1.0}, STEEPEST * away * abs(float(value[0, nearest])), False, 0.0)
    straight, slope = _line(x, value[0], _pair(x, used, wanted), wanted)
    rows, parts = _polynomial(log_l0[:, used], value[:, used], wanted)
    error = abs(float(rows[0]) - (float(value[0, nearest]) if len(used) == 2 else straight))
    return Matched(rows, dict(zip(used, parts, strict=True)), error, not own, slope)


def _around(x: Float[Array, " points"], wanted: float) -> list[int]:
    """Up to three points around `wanted`, in order: each near another one of them, and none too close to it."""
    first, *others = sorted(range(len(x)), key=lambda i: abs(x[i] - wanted))
    chosen = [first]
    for i in others:
        gap = min(abs(x[i] - x[j]) for j in chosen)
        if len(chosen) < 3 and math.log(APART) <= gap <= math.log(NEAR):
            chosen.append(i)
    return sorted(chosen, key=lambda i: x[i])


def _pair(x: Float[Array, " points"], used: list[int], wanted: float) -> tuple[int, int]:
    """The two of them between which `wanted` lies, or to whose end it is closest."""
    left = sum(x[i] <= wanted for i in used[1:-1])
    return used[left], used[left + 1]


def _line(x: Float[Array, " points"], y: Float[Array, " points"], ends: tuple[int, int], wanted: float) -> tuple[float, float]:
    """Its height at `wanted`, and its slope."""
    i, j = ends
    slope = float((y[j] - y[i]) / (x[j] - x[i]))
    return float(y[i]) + slope * (wanted - float(x[i])), slope


def _polynomial(
    x: Float[Array, "rows used"], y: Float[Array, "rows used"], wanted: float
) -> tuple[Float[Array, " rows"], list[float]]:
    """Through all points of each row (Lagrange), at `wanted`; with the share of each point's value in the first row."""
    shares = np.ones_like(y)
    for j in range(x.shape[1]):
        for other in range(x.shape[1]):
            if other != j:
                shares[:, j] *= (wanted - x[:, other]) / (x[:, j] - x[:, other])
    return (shares * y).sum(1), shares[0].tolist()
