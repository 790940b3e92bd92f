"""Which architecture is better, at which L0, by how much, and how sure that is.

At one place (model, site, layer) an architecture is a curve through its SAEs, a point per sparsity (or fixed coefficient),
the mean over seeds. Two curves are compared at each L0 at which one of them has a point and both have a value (matching.py).

    verdict   from the difference and its interval (verdicts.py)
    mean      of the values at the L0 that all curves have, weighted by log L0 (trapezoid), beside the reference's

With one seed a verdict is of the two SAEs, not of their architectures. Where one curve of the place has several seeds and
another one has not, the largest spread between seeds that is known there stands for it. All verdicts of a report are
tested together by Holm's procedure: `holm` marks those that survive it.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from saesweep.intervals import Variance, holm
from saesweep.jackknife import numbers
from saesweep.matching import MATCH
from saesweep.measured_curve import Curve, Reading, averaged
from saesweep.outputs import PLACE, on_front
from saesweep.verdicts import judged

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
        one["holm"] = survives
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


def _labels(curves: Sequence[Curve]) -> list[float]:
    """The L0 at which one of them has a point: all targets that were met, and what is not within MATCH of one found before."""
    points = [point for curve in curves for point in curve.points]
    found = {point.label for point in points if point.label == point.sparsity}
    for label in sorted(point.label for point in points if point.label != point.sparsity):
        if all(abs(math.log(label / other)) > math.log(1 + MATCH) for other in found):
            found.add(label)
    return sorted(found)


def _common_l0(curves: Sequence[Curve], label: float) -> float:
    """In the middle of where those of them that have a point of their own have it."""
    own = [point.l0 for curve in curves if (point := curve.own(label)) is not None]
    return float(f"{np.exp(np.mean(np.log(own))):.6g}") if own else label


def _gaps(a: Curve, b: Curve, curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Where both have a value, one per L0 at which one of them has a point."""
    gaps = []
    for label in _labels([a, b]):
        l0 = _common_l0([a, b], label)
        at = [curve.at(l0) for curve in (a, b)]
        if None in at:
            continue
        own = {f"l0_{key}": (point := curve.own(label)) and point.l0 for key, curve in (("a", a), ("b", b))}
        between = [curve.arch for curve, reading in zip((a, b), at, strict=True) if reading.interpolated]
        gaps.append({"a": a.arch, "b": b.arch, "sparsity": label, "l0": l0, **own, "interpolated": ", ".join(between) or None,
                     **judged(*at, _borrowed([curve.at(l0) for curve in curves]))})
    return gaps


def _borrowed(readings: Sequence[Reading | None]) -> Variance | None:
    """The largest spread between seeds that is known; of single SAEs."""
    spreads = [reading.spread for reading in readings if reading is not None and reading.spread is not None]
    return max(spreads, key=lambda spread: spread.value, default=None)


def _means(curves: Sequence[Curve], reference: str | None) -> dict[str, Any]:
    """Of curves with several points, at the L0 that all of them have; the smallest mean first."""
    none = {"reference": None, "mean_over_l0": [], "means": []}
    if len(curves) < 2 or not _on_one_text(curves):
        return none
    shared = [l0 for l0 in (_common_l0(curves, label) for label in _labels(curves)) if all(curve.at(l0) for curve in curves)]
    if len(shared) < 2:
        return none
    shares = _trapezoid(np.log(shared))
    means = {curve.arch: averaged([curve.at(l0) for l0 in shared], shares) for curve in curves}
    best_first = sorted(means, key=lambda arch: float(means[arch].rows[0]))
    against = reference or "topk"
    against = against if against in means else best_first[0]
    borrowed, rows = _borrowed(list(means.values())), []
    for arch in best_first:
        beside = judged(means[arch], means[against], borrowed) if arch != against else {}
        rows.append({"arch": arch, "mean": float(means[arch].rows[0]), **beside})
    return {"reference": against, "mean_over_l0": shared, "means": rows}


def _trapezoid(x: np.ndarray) -> list[float]:
    """The share of each point in the mean of a function over x, linear between the points."""
    widths = np.diff(x) / (x[-1] - x[0])
    return ((np.append(widths, 0) + np.append(0, widths)) / 2).tolist()
