"""Which architecture is better, at which L0, by how much, and how sure that is.

At one place (model, site, layer) an architecture is a curve through its SAEs, a point per sparsity (or fixed coefficient),
the mean over seeds. Two curves are compared at each L0 at which one of them has a point and both have a value (matching.py).

    verdict   from the difference and its interval (verdicts.py)
    mean      of the values at the L0 that all curves have, weighted by log L0 (trapezoid), beside the reference's

With one seed a verdict is of the two SAEs, not of their architectures. Where a curve at the place has several seeds at that L0
and another one has not, its spread stands for the other's (verdicts.py). All verdicts of a report are tested together by
Holm's procedure: `holm` marks those that survive it, where there are several.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from saesweep.report.intervals import holm
from saesweep.report.jackknife import numbers
from saesweep.report.matching import MATCH
from saesweep.report.measured_curve import Curve, Reading, averaged, within
from saesweep.report.verdicts import Lender, judged
from saesweep.results.sweep_table import PLACE, on_front

MEASURES = ("fvu", "delta_loss")  # of both, less is better


def compare(df: pd.DataFrame, documents: Sequence[pd.DataFrame | None], reference: str | None = None) -> dict[str, Any]:
    """What pareto.json holds of outputs.table(); `documents`: those of each row.

    reference: the arch whose mean the others' are compared with; if None topk, or the best where there is no topk.
    """
    places = []
    for _, rows in df.groupby(df.groupby(PLACE).ngroup()):
        name = {key: rows[key].tolist()[0] for key in PLACE}
        found = {key: _compared(rows, [documents[i] for i in rows.index], key, reference) for key in MEASURES}
        places.append(name | {"metrics": {key: part for key, part in found.items() if part}})
    tested = [one for place in places for part in place["metrics"].values() for one in judged_in(part) if one["p"] is not None]
    for one, survives in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["holm"] = survives and len(tested) > 1
    return {"places": places, "comparisons": len(tested)}


def judged_in(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All of one measure at one place that has a verdict: the gaps, and the means beside the reference's."""
    yield from part["gaps"]
    yield from (mean for mean in part["means"] if mean["arch"] != part["reference"])


def _compared(
    rows: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str, reference: str | None
) -> dict[str, Any]:
    known = (np.isfinite(rows["l0"]) & np.isfinite(rows[measure]) & (rows["l0"] > 0)).to_numpy()
    if not known.any():
        return {}
    points, front = rows[known], rows["path"][on_front(rows, measure)].tolist()
    measured = numbers(points, [d for d, k in zip(documents, known, strict=True) if k], measure)
    curves = [Curve.of(arch, points, measured) for arch in dict.fromkeys(points["arch"])]
    means = _means([curve for curve in curves if len(curve.points) > 1], reference)
    rank = {mean["arch"]: i for i, mean in enumerate(means["means"])}
    curves.sort(key=lambda curve: rank.get(curve.arch, len(rank)))
    pairs = [(a, b) for i, a in enumerate(curves) for b in curves[i + 1 :]]
    gaps = [gap for pair in pairs if _on_one_text(pair) for gap in _gaps(*pair, curves)]
    apart = [[a.arch, b.arch] for a, b in pairs if not _on_one_text([a, b])]
    described = [curve.described() for curve in curves]
    return {"front": front, "curves": described, **means, "gaps": gaps, "on_other_text": apart}


def _on_one_text(curves: Sequence[Curve]) -> bool:
    """For all that is known."""
    return len(frozenset().union(*(curve.texts for curve in curves))) <= 1


def _shared_l0(curves: Sequence[Curve]) -> dict[float, float]:
    """The L0 at which one of them has a point, by what it is called: all targets that were met, then what else there is.

    It is the middle of where those that have a point of their own have it; what comes out at one L0 is named once.
    """
    points = [point for curve in curves for point in curve.points]
    targets = sorted({point.label for point in points if point.label == point.sparsity})
    others = sorted({point.label for point in points if point.label != point.sparsity})
    found: dict[float, float] = {}
    for label in [*targets, *(one for one in others if not any(within(one, target) for target in targets))]:
        own = [point.l0 for curve in curves if (point := curve.own(label)) is not None]
        l0 = float(f"{np.exp(np.mean(np.log(own))):.6g}") if own else label
        if not any(abs(math.log(l0 / other)) <= math.log(1 + MATCH) / 2 for other in found.values()):
            found[label] = l0
    return dict(sorted(found.items()))


def _gaps(a: Curve, b: Curve, curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Where both have a value, one per L0 at which one of them has a point."""
    gaps = []
    for label, l0 in _shared_l0([a, b]).items():
        at = {curve.arch: curve.at(l0) for curve in (a, b)}
        if None in at.values():
            continue
        own = {f"l0_{key}": at[curve.arch].own and at[curve.arch].own.l0 for key, curve in (("a", a), ("b", b))}
        between = [arch for arch, reading in at.items() if reading.own is None]
        lender = _lender(at, [a, b, *curves], l0)
        gaps.append({"a": a.arch, "b": b.arch, "sparsity": label, "l0": l0, **own, "interpolated": ", ".join(between) or None,
                     **judged(at[a.arch], at[b.arch], lender)})
    return gaps


def _lender(at: Mapping[str, Reading], curves: Sequence[Curve], l0: float) -> Lender | None:
    """Whose seeds stand for those of a curve that has one: the other one's, else of a third that has an SAE there, on the
    same text, the one whose seeds differ most beside its value."""
    if all(reading.count > 1 for reading in at.values()):
        return None
    known = [Lender(arch, reading) for arch, reading in at.items() if reading.count > 1]
    if not known:
        third = [curve for curve in curves if curve.arch not in at and _on_one_text([*curves[:2], curve])]
        there = [Lender(curve.arch, reading) for curve in third if (reading := curve.at(l0)) is not None]
        known = [one for one in there if one.reading.own is not None and one.reading.count > 1]
    return max(known, key=lambda one: one.spread.value / max(abs(one.reading.value), 1e-12) ** 2, default=None)


def _means(curves: Sequence[Curve], reference: str | None) -> dict[str, Any]:
    """Of curves with several points on the text of most of them, at the L0 that all of them have; the smallest mean first."""
    none = {"reference": None, "mean_over_l0": [], "means": []}
    by_text = [[curve for curve in curves if _on_one_text([one, curve])] for one in curves]
    curves = max(by_text, key=len, default=[])
    l0s = [l0 for l0 in sorted(_shared_l0(curves).values()) if all(curve.at(l0) for curve in curves)]
    if len(curves) < 2 or len(l0s) < 2:
        return none
    shares = _trapezoid(np.log(l0s))
    means = {curve.arch: averaged([curve.at(l0) for l0 in l0s], shares) for curve in curves}
    best_first = sorted(means, key=lambda arch: means[arch].value)
    against = reference or next((arch for arch in means if arch.split(" (")[0] == "topk"), best_first[0])
    against = against if against in means else best_first[0]
    rows = []
    for arch in best_first:
        pair = {arch: means[arch], against: means[against]}
        known = [Lender(name, one) for name, one in pair.items() if one.count > 1]
        lender = known[0] if len(known) == 1 else None
        beside = judged(means[arch], means[against], lender) if arch != against else {}
        rows.append({"arch": arch, "mean": means[arch].value, **beside})
    return {"reference": against, "mean_over_l0": l0s, "means": rows}


def _trapezoid(x: np.ndarray) -> list[float]:
    """The share of each point in the mean of a function over x, linear between the points."""
    widths = np.diff(x) / (x[-1] - x[0])
    return ((np.append(widths, 0) + np.append(0, widths)) / 2).tolist()
