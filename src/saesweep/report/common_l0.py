"""The L0 at which curves are compared.

    shared_l0      where one of the curves has a point
    close_points   halfway between two points up to TOLERANCE apart, where nothing else compares them
    l0_intervals   of the measured L0, over the held-out documents

At TOLERANCE each value moves by 7% of its L0, and FVU by 2 to 3%; the bound on the error of that is in docs/results.md.
"""
import math
from collections.abc import Sequence

import numpy as np

from saesweep.report.intervals import document_variance, interval
from saesweep.report.matching import MATCH, TOLERANCE
from saesweep.report.measured_curve import Curve, Point, same_l0

ROUNDING = 1 + 1e-5  # an L0 at which curves are compared has 6 digits
REACH = math.log((1 + TOLERANCE) * ROUNDING) / 2  # from the L0 halfway between two points


def shared_l0(curves: Sequence[Curve]) -> dict[float, float]:
    """The L0 at which one of the curves has a point, by label: first the targets that were met, then other measured L0.

    It is the geometric mean of the points at the label. Labels whose L0 are closer than half of MATCH are merged.
    """
    points = [point for curve in curves for point in curve.points]
    met = sorted({point.label for point in points if point.label == point.sparsity})
    others = sorted({point.label for point in points if point.label != point.sparsity})
    found: dict[float, float] = {}
    for label in [*met, *(one for one in others if not any(same_l0(one, target) for target in met))]:
        here = [point.l0 for curve in curves if (point := curve.point_at(label)) is not None]
        l0 = float(f"{np.exp(np.mean(np.log(here))):.6g}") if here else label
        if not any(abs(math.log(l0 / other)) <= math.log(1 + MATCH) / 2 for other in found.values()):
            found[label] = l0
    return dict(sorted(found.items()))


def close_points(a: Curve, b: Curve, compared: Sequence[float]) -> dict[float, float]:
    """The L0 halfway between points of both curves up to TOLERANCE apart, each other's nearest, between which no L0 is
    compared; by label: their target where both have the same, else the L0."""
    found = {}
    for point in a.points:
        other = _nearest(b, point)
        low, high = sorted((point.l0, other.l0))
        between = any(low / ROUNDING < l0 < high * ROUNDING for l0 in compared)
        if _nearest(a, other) is point and high / low <= 1 + TOLERANCE and not between:
            l0 = float(f"{math.sqrt(low * high):.6g}")
            same = point.sparsity is not None and point.sparsity == other.sparsity
            found[point.sparsity if same else float(f"{l0:.3g}")] = l0
    return found


def _nearest(curve: Curve, point: Point) -> Point:
    return min(curve.points, key=lambda one: abs(math.log(one.l0 / point.l0)))


def l0_intervals(curve: Curve) -> dict[str, list[float | None]]:
    """Ends of the 95% interval of each point's L0 over the documents; None where there are too few."""
    found = []
    for point in curve.points:
        size = min(len(sae.l0) for sae in point.saes)
        rows = np.mean([sae.l0[:size] for sae in point.saes], axis=0)
        found.append(interval(float(rows[0]), [document_variance(rows, np.ones(size - 1))]))
    return {"l0_low": [one and one.low for one in found], "l0_high": [one and one.high for one in found]}
