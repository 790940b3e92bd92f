"""Which architecture is better, at which L0, by how much, and how sure that is.

At one place (model, site, layer) an architecture is a curve through its SAEs, a point per sparsity (or fixed coefficient),
the mean over seeds.

    value(L0)   linear in log L0 between two points of the curve, never beyond its ends
    gap         100 (1 - a/b) percent: a's value is so much below b's at the same L0
    area        mean over log L0 of the running minimum of the curve, between the two L0 that all curves reach

The same L0: each target sparsity, moved into what both curves reach where that is at most MATCH away; for curves of fixed
coefficients powers of two, or else the middle of what both reach. The intervals are those of resampling.py.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray as Array

from saesweep.outputs import PLACE, aims, on_front
from saesweep.resampling import Replicates, Samples, ascending, percentiles, student

MEASURES = ("fvu", "delta_loss")  # of both, less is better
MATCH = 0.05  # of L0: within which its target is met


def compare(df: pd.DataFrame, documents: Sequence[pd.DataFrame | None], reference: str | None = None) -> dict[str, Any]:
    """What pareto.json holds of outputs.table(); `documents`: those of each row.

    reference: the arch whose area the others' are compared with; if None topk, or the best where there is no topk.
    """
    places = []
    for _, rows in df.groupby(df.groupby(PLACE).ngroup()):
        name = {key: rows[key].tolist()[0] for key in PLACE}
        found = {key: _compared(rows, [documents[i] for i in rows.index], key, reference) for key in MEASURES}
        places.append(name | {"metrics": {key: part for key, part in found.items() if part}})
    return {"places": places}


def _compared(
    rows: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str, reference: str | None
) -> dict[str, Any]:
    known = (np.isfinite(rows["l0"]) & np.isfinite(rows[measure]) & (rows["l0"] > 0)).to_numpy()
    if not known.any():
        return {}
    points, front = rows[known], rows["path"][on_front(rows, measure)].tolist()
    samples = Samples.of(points, [d for d, k in zip(documents, known, strict=True) if k], measure)
    curves = [Curve.of(arch, points, measure, samples) for arch in dict.fromkeys(points["arch"])]
    areas = _areas([curve for curve in curves if len(curve.sparsities) > 1], reference)
    rank = {area["arch"]: i for i, area in enumerate(areas["areas"])}
    curves.sort(key=lambda curve: rank.get(curve.arch, len(rank)))
    pairs = [(a, b) for i, a in enumerate(curves) for b in curves[i + 1 :]]
    gaps = [gap for pair in pairs if _on_one_text(pair) for gap in _gaps(*pair)]
    apart = [[a.arch, b.arch] for a, b in pairs if not _on_one_text([a, b])]
    described = [curve.described() for curve in curves]
    return {"front": front, "curves": described, **areas, "gaps": gaps, "on_other_text": apart}


def _on_one_text(curves: Sequence[Curve]) -> bool:
    """For all that is known."""
    return len(frozenset().union(*(curve.texts for curve in curves))) <= 1


@dataclass(frozen=True)
class Curve:
    """One architecture at one place; the mean over its seeds, by L0."""

    arch: str
    sparsities: list[float | None]  # the target of each point; None: its coefficient was fixed
    l0: Array  # [draws, points], as in Samples
    value: Array
    by_seed: dict[int, tuple[Array, Array]]  # l0 and value [points] of each seed that has them all
    texts: frozenset[int]  # those known that it was measured on
    documents: int

    @staticmethod
    def of(arch: str, points: pd.DataFrame, measure: str, samples: Samples) -> Curve:
        own, aim, seed = (points["arch"] == arch).to_numpy(), aims(points).to_numpy(), points["seed"].to_numpy()
        at = sorted((own & (aim == one) for one in dict.fromkeys(aim[own])), key=lambda mask: samples.l0[0, mask].mean())
        l0, value = (np.stack([x[:, mask].mean(1) for mask in at], axis=1) for x in (samples.l0, samples.value))
        by_seed = {}
        for number in sorted(set(seed[own].tolist())):
            here = [mask & (seed == number) for mask in at]
            if all(mask.sum() == 1 for mask in here):
                by_seed[number] = tuple(np.concatenate([x[0, mask] for mask in here]) for x in (samples.l0, samples.value))
        texts = frozenset(samples.text[own].tolist()) - {-1}
        aimed = [points["sparsity"].tolist()[mask.argmax()] for mask in at]
        targets = [None if np.isnan(target) else target for target in aimed]
        return Curve(arch, targets, l0, value, by_seed, texts, int(samples.documents[own].min()))

    def described(self) -> dict[str, Any]:
        if len(self.by_seed) > 1:
            each = [student(column) for column in np.stack([value for _, value in self.by_seed.values()]).T]
        else:
            each = [percentiles(column) for column in self.value.T]
        ends = {"mean": self.value[0].tolist(), "low": [i.low for i in each], "high": [i.high for i in each]}
        return {"arch": self.arch, "sparsity": self.sparsities, "l0": self.l0[0].tolist(), **ends}


def _replicates(curves: Sequence[Curve]) -> Replicates:
    """Of the seeds that all of them have, where those are several; else of the draws."""
    seeds = sorted(set.intersection(*(set(curve.by_seed) for curve in curves)))
    if len(seeds) > 1:
        found = [tuple(np.stack(x) for x in zip(*(c.by_seed[s] for s in seeds), strict=True)) for c in curves]
        return Replicates([ascending(*one) for one in found], True, f"{len(seeds)} seeds")
    documents = min(curve.documents for curve in curves)
    if documents == 0:
        return Replicates([(c.l0[:1], c.value[:1]) for c in curves], False, None)
    return Replicates([ascending(c.l0, c.value) for c in curves], False, f"{documents} documents")


def interpolated(l0: Array, value: Array, at: Array) -> Array:
    """[replicates]: the value at an L0 within the curve, linear in log L0."""
    if l0.shape[1] == 1:
        return value[:, 0]
    left = np.clip((l0 <= at[:, None]).sum(1) - 1, 0, l0.shape[1] - 2)
    ends = [np.take_along_axis(x, left[:, None] + i, 1)[:, 0] for x in (l0, value) for i in (0, 1)]
    x0, x1, y0, y1 = ends
    width = np.log(x1 / x0)
    share = np.where(width > 0, np.log(at / x0) / np.where(width > 0, width, 1), 0.0)
    return y0 + np.clip(share, 0, 1) * (y1 - y0)


def area(l0: Array, value: Array, low: Array, high: Array) -> Array:
    """[replicates]: mean over log L0, between the two, of the running minimum."""
    best = np.minimum.accumulate(value, axis=1)
    knots = np.sort(np.concatenate([np.clip(l0, low[:, None], high[:, None]), low[:, None], high[:, None]], axis=1), axis=1)
    heights = np.stack([interpolated(l0, best, knots[:, i]) for i in range(knots.shape[1])], axis=1)
    return np.trapezoid(heights, np.log(knots), axis=1) / np.log(high / low)


def _gaps(a: Curve, b: Curve) -> list[dict[str, Any]]:
    """Where both can be had at the same L0: one per sparsity."""
    replicates = _replicates([a, b])
    low, high = replicates.range
    if (replicates.estimated(low) > replicates.estimated(high)).any():
        return []
    gaps = []
    for sparsity in _targets(a, b, replicates):
        at = np.clip(sparsity, low, np.maximum(low, high))
        values = [interpolated(*curve, at) for curve in replicates.curves]
        interval = replicates.percent(*values)
        if interval is None:
            continue
        said = replicates.said if interval.low is not None else None
        l0, value_a, value_b = map(replicates.estimate, (at, *values))
        gaps.append({"a": a.arch, "b": b.arch, "sparsity": sparsity, "l0": l0, "value_a": value_a, "value_b": value_b,
                     "percent": interval.estimate, "low": interval.low, "high": interval.high, "interval": said})
    return gaps


def _targets(a: Curve, b: Curve, replicates: Replicates) -> list[float]:
    """The L0 at which two curves that share some are compared."""
    low, high = map(replicates.estimated, replicates.range)

    def reached(sparsity: float) -> bool:
        return bool(np.abs(np.clip(sparsity, low, high) / sparsity - 1).max() <= MATCH)

    targets = {*a.sparsities, *b.sparsities} - {None}
    found = sorted(filter(reached, targets or {2.0**power for power in range(20)}))
    if found or None not in (*a.sparsities, *b.sparsities):
        return found
    middle = float(f"{np.sqrt(low.max() * high.min()):.3g}")
    return [middle] if reached(middle) else []


def _areas(curves: Sequence[Curve], reference: str | None) -> dict[str, Any]:
    """Of the curves with several points, the smallest first."""
    none = {"reference": None, "range": None, "areas": []}
    if not curves or not _on_one_text(curves):
        return none
    replicates = _replicates(curves)
    low, high = replicates.range
    if (low >= high).any():
        return none
    areas = {c.arch: area(*one, low, high) for c, one in zip(curves, replicates.curves, strict=True)}
    size = {arch: replicates.estimate(x) for arch, x in areas.items()}
    best_first = sorted(size, key=size.__getitem__)
    wanted = reference or "topk"
    against = wanted if wanted in size else best_first[0]
    rows = [{"arch": arch, "mean": size[arch]} | _against(replicates, areas[arch], areas[against]) for arch in best_first]
    return {"reference": against, "range": [replicates.estimate(low), replicates.estimate(high)], "areas": rows}


def _against(replicates: Replicates, area: Array, reference: Array) -> dict[str, float | None]:
    found = replicates.percent(area, reference) or (None, None, None)
    return dict(zip(("percent", "low", "high"), found, strict=True))


def verdict(gap: Mapping[str, Any]) -> str:
    """better or worse: a than b; level where the interval holds both."""
    low, high = (gap["percent"] if end is None else end for end in (gap["low"], gap["high"]))
    return "better" if low > 0 else "worse" if high < 0 else "level"


def turned(gap: Mapping[str, Any]) -> dict[str, Any]:
    """The same gap, with b first: by so many percent of a's value b's is lower."""
    percent, high, low = (
        None if x is None else 100 - 100 / (1 - x / 100) for x in (gap["percent"], gap["low"], gap["high"])
    )
    swapped = {"a": gap["b"], "b": gap["a"], "value_a": gap["value_b"], "value_b": gap["value_a"]}
    return {**gap, **swapped, "percent": percent, "low": low, "high": high}
