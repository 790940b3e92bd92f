"""Which architecture is better, at which L0, by how much, and with what confidence.

At one hook point (model, site, layer) an architecture is a curve through its SAEs: one point per target L0 or fixed
coefficient, the mean over seeds. Two curves are compared at each L0 where one of them has a point and both have a value
(matching.py).

    verdict   from the difference and its interval (verdicts.py)
    mean      over log L0 (trapezoid rule), at the L0 shared by all curves, relative to the reference architecture

With one seed a verdict holds for the two SAEs, not for their architectures; where another curve has several seeds at that
L0, its seed variance is borrowed (verdicts.py). Holm's correction runs over all verdicts of a report: `holm` marks those
that are significant after it.
"""
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from saesweep.report.intervals import holm
from saesweep.report.jackknife import replicates
from saesweep.report.matching import MATCH
from saesweep.report.measured_curve import Curve, CurveValue, same_l0, weighted_mean
from saesweep.report.verdicts import BorrowedVariance, compare_values
from saesweep.storage.sweep_table import PLACE, on_front

MEASURES = ("fvu", "delta_loss")  # lower is better


def compare(df: pd.DataFrame, documents: Sequence[pd.DataFrame | None], reference: str | None = None) -> dict[str, Any]:
    """The content of pareto.json, from sweep_table.table() and the sums by document of each row.

    reference: the architecture that means are relative to; None: topk, or the one with the lowest mean.
    """
    places = []
    for _, rows in df.groupby(df.groupby(PLACE).ngroup()):
        place = {key: rows[key].tolist()[0] for key in PLACE}
        blocks = {key: _block(rows, [documents[i] for i in rows.index], key, reference) for key in MEASURES}
        places.append(place | {"metrics": {key: block for key, block in blocks.items() if block}})
    blocks = [block for place in places for block in place["metrics"].values()]
    tested = [one for block in blocks for one in comparisons(block) if one["p"] is not None]
    for one, significant in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["holm"] = significant and len(tested) > 1
    return {"places": places, "comparisons": len(tested)}


def comparisons(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything with a verdict, of one measure at one hook point: the gaps, and the means other than the reference's."""
    yield from block["gaps"]
    yield from (mean for mean in block["means"] if mean["arch"] != block["reference"])


def _block(
    rows: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str, reference: str | None
) -> dict[str, Any]:
    """One measure at one hook point; empty where no SAE has the measure."""
    l0, value = rows["l0"].to_numpy(float), rows[measure].to_numpy(float)
    known = np.isfinite(l0) & np.isfinite(value) & (l0 > 0)
    if not known.any():
        return {}
    points, front = rows.loc[known], rows.loc[on_front(rows, measure), "path"].tolist()
    measured = replicates(points, [d for d, k in zip(documents, known, strict=True) if k], measure)
    curves = [Curve.of(arch, points, measured) for arch in dict.fromkeys(points["arch"])]
    means = _means([curve for curve in curves if len(curve.points) > 1], reference)
    rank = {mean["arch"]: i for i, mean in enumerate(means["means"])}
    curves.sort(key=lambda curve: rank.get(curve.arch, len(rank)))
    pairs = [(a, b) for i, a in enumerate(curves) for b in curves[i + 1 :]]
    gaps = [gap for pair in pairs if on_one_text(pair) for gap in _gaps(*pair, curves)]
    apart = [[a.arch, b.arch] for a, b in pairs if not on_one_text([a, b])]
    return {"front": front, "curves": [curve.summary() for curve in curves], **means, "gaps": gaps, "on_other_text": apart}


def on_one_text(curves: Sequence[Curve]) -> bool:
    """Unknown texts count as equal."""
    return len(frozenset().union(*(curve.texts for curve in curves))) <= 1


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


def _gaps(a: Curve, b: Curve, curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """One comparison per L0 at which one of the two has a point and both have a value."""
    gaps = []
    for label, l0 in shared_l0([a, b]).items():
        value_a, value_b = a.value_at(l0), b.value_at(l0)
        if value_a is None or value_b is None:
            continue
        values = {a.arch: value_a, b.arch: value_b}
        interpolated = [arch for arch, value in values.items() if value.measured is None]
        gaps.append({
            "a": a.arch, "b": b.arch, "sparsity": label, "l0": l0,
            "l0_a": value_a.measured and value_a.measured.l0, "l0_b": value_b.measured and value_b.measured.l0,
            "interpolated": ", ".join(interpolated) or None,
            **compare_values(value_a, value_b, _borrowed(values, [a, b, *curves], l0)),
        })
    return gaps


def _borrowed(values: Mapping[str, CurveValue], curves: Sequence[Curve], l0: float) -> BorrowedVariance | None:
    """Seed variance for the values with a single seed: of the other value, else of a third curve measured at this L0 on the
    same text, the one with the largest relative variance. The first two curves are those of the values."""
    if all(value.seeds > 1 for value in values.values()):
        return None
    known = [BorrowedVariance(arch, value) for arch, value in values.items() if value.seeds > 1]
    if not known:
        third = [curve for curve in curves if curve.arch not in values and on_one_text([*curves[:2], curve])]
        there = [(curve.arch, value) for curve in third if (value := curve.value_at(l0)) is not None]
        known = [BorrowedVariance(arch, value) for arch, value in there if value.measured is not None and value.seeds > 1]
    return max(known, key=lambda one: one.variance.value / max(abs(one.source.value), 1e-12) ** 2, default=None)


def _means(curves: Sequence[Curve], reference: str | None) -> dict[str, Any]:
    """The mean of each curve over the L0 that all of them have, lowest first; of the curves on the most common text."""
    none = {"reference": None, "mean_over_l0": [], "means": []}
    by_text = [[curve for curve in curves if on_one_text([one, curve])] for one in curves]
    curves = max(by_text, key=len, default=[])
    at_l0 = {l0: [curve.value_at(l0) for curve in curves] for l0 in sorted(shared_l0(curves).values())}
    shared = {l0: [one for one in values if one] for l0, values in at_l0.items() if all(values)}
    if len(curves) < 2 or len(shared) < 2:
        return none
    weights = trapezoid(np.log(list(shared)))
    by_curve = zip(*shared.values(), strict=True)
    means = {curve.arch: weighted_mean(values, weights) for curve, values in zip(curves, by_curve, strict=True)}
    ranked = sorted(means, key=lambda arch: means[arch].value)
    against = reference or next((arch for arch in means if arch.split(" ")[0] == "topk"), ranked[0])
    against = against if against in means else ranked[0]
    rows = [{"arch": arch, "mean": means[arch].value, **_relative(means, arch, against)} for arch in ranked]
    return {"reference": against, "mean_over_l0": list(shared), "means": rows}


def _relative(means: Mapping[str, CurveValue], arch: str, reference: str) -> dict[str, Any]:
    if arch == reference:
        return {}
    several = [BorrowedVariance(name, means[name]) for name in (arch, reference) if means[name].seeds > 1]
    return compare_values(means[arch], means[reference], several[0] if len(several) == 1 else None)


def trapezoid(x: np.ndarray) -> list[float]:
    """The weight of each point in the mean over x of a function that is linear between the points."""
    widths = np.diff(x) / (x[-1] - x[0])
    return ((np.append(widths, 0) + np.append(0, widths)) / 2).tolist()
