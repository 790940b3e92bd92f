"""Which architecture is better, at which L0, by how much, and with what confidence.

At one hook point (model, site, layer) an architecture is a curve through its SAEs: one point per target L0 or fixed
coefficient, the mean over seeds. Two curves are compared at each L0 where one of them has a point and both have a value
(matching.py); and halfway between two points that are up to TOLERANCE apart, where nothing else compares them.

    verdict   from the difference and its interval (verdicts.py)
    mean      over log L0 (trapezoid rule), at the L0 shared by all curves, relative to the reference architecture

SAEs that others have trained (imported/) are in no curve: their text and the length of their training differ.

With one seed a verdict holds for the two SAEs, not for their architectures; where another curve has several seeds at that
L0, its seed variance is borrowed (verdicts.py). Holm's correction runs over all verdicts of a report: `holm` marks those
that are significant after it.
"""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from saesweep.report.common_l0 import REACH, close_points, l0_intervals, shared_l0
from saesweep.report.intervals import holm
from saesweep.report.jackknife import replicates
from saesweep.report.measured_curve import Curve, CurveValue, weighted_mean
from saesweep.report.slopes import with_slopes
from saesweep.report.verdicts import BorrowedVariance, compare_values
from saesweep.storage.sweep_table import PLACE, imported, on_front

MEASURES = ("fvu", "delta_loss")  # lower is better


def compare(df: pd.DataFrame, documents: Sequence[pd.DataFrame | None], reference: str | None = None) -> dict[str, Any]:
    """The content of pareto.json, from sweep_table.table() and the sums by document of each row.

    reference: the architecture that means are relative to; None: topk, or the one with the lowest mean.
    """
    rows = [rows for _, rows in df.groupby(df.groupby(PLACE).ngroup())]
    models = {i: str(one["model"].iloc[0]) for i, one in enumerate(rows)}
    metrics: list[dict[str, Any]] = [{} for _ in rows]
    for measure in MEASURES:
        known = {i: _known(one, measure) for i, one in enumerate(rows)}
        own = {i: one.loc[~imported(one)] for i, one in known.items() if len(one)}
        curves = {i: _curves(one, [documents[j] for j in one.index], measure) for i, one in own.items()}
        for i, found in with_slopes(curves, models, measure).items():
            metrics[i][measure] = _block(found, rows[i].loc[on_front(rows[i], measure), "path"].tolist(), reference)
    names = [{key: one[key].tolist()[0] for key in PLACE} for one in rows]
    places = [name | {"metrics": found} for name, found in zip(names, metrics, strict=True)]
    blocks = [block for place in places for block in place["metrics"].values()]
    tested = [one for block in blocks for one in comparisons(block) if one["p"] is not None]
    for one, significant in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["holm"] = significant and len(tested) > 1
    return {"places": places, "comparisons": len(tested)}


def comparisons(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything with a verdict, of one measure at one hook point: the gaps, and the means other than the reference's."""
    yield from block["gaps"]
    yield from (mean for mean in block["means"] if mean["arch"] != block["reference"])


def _known(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The SAEs at one hook point that have the measure."""
    l0, value = rows["l0"].to_numpy(float), rows[measure].to_numpy(float)
    return rows.loc[np.isfinite(l0) & np.isfinite(value) & (l0 > 0)]


def _curves(points: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str) -> list[Curve]:
    return Curve.each(points, replicates(points, documents, measure))


def _block(curves: list[Curve], front: list[str], reference: str | None) -> dict[str, Any]:
    """One measure at one hook point."""
    means = _means([curve for curve in curves if len(curve.points) > 1], reference)
    rank = {mean["arch"]: i for i, mean in enumerate(means["means"])}
    curves.sort(key=lambda curve: rank.get(curve.arch, len(rank)))
    pairs = [(a, b) for i, a in enumerate(curves) for b in curves[i + 1 :]]
    gaps = [gap for pair in pairs if on_one_text(pair) for gap in _gaps(*pair, curves)]
    apart = [[a.arch, b.arch] for a, b in pairs if not on_one_text([a, b])]
    summaries = [curve.summary() | l0_intervals(curve) for curve in curves]
    return {"front": front, "curves": summaries, **means, "gaps": gaps, "on_other_text": apart}


def on_one_text(curves: Sequence[Curve]) -> bool:
    """Unknown texts count as equal."""
    return len(frozenset().union(*(curve.texts for curve in curves))) <= 1


def _gaps(a: Curve, b: Curve, curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """One comparison per L0 at which one of the two has a point and both have a value, then those of close points."""
    gaps = [gap for label, l0 in shared_l0([a, b]).items() if (gap := _gap(a, b, curves, label, l0))]
    close = close_points(a, b, [gap["l0"] for gap in gaps])
    gaps += [gap for label, l0 in close.items() if (gap := _gap(a, b, curves, label, l0, REACH))]
    return sorted(gaps, key=lambda gap: gap["sparsity"])


def _gap(
    a: Curve, b: Curve, curves: Sequence[Curve], label: float, l0: float, reach: float | None = None
) -> dict[str, Any] | None:
    """None where one of the two has no value. curves: from which seed variance may be borrowed."""
    value_a, value_b = a.value_at(l0, reach), b.value_at(l0, reach)
    if value_a is None or value_b is None:
        return None
    values = {a.arch: value_a, b.arch: value_b}
    interpolated = [arch for arch, value in values.items() if value.measured is None]
    return {
        "a": a.arch, "b": b.arch, "sparsity": label, "l0": l0,
        "l0_a": value_a.measured and value_a.measured.l0, "l0_b": value_b.measured and value_b.measured.l0,
        "slope_a": value_a.slope_of, "slope_b": value_b.slope_of, "interpolated": ", ".join(interpolated) or None,
        **compare_values(value_a, value_b, _borrowed(values, [a, b, *curves], l0)),
    }


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
