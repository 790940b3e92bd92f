"""An architecture at one hook point as a curve: its SAEs by L0, the mean over seeds, and its value at any L0."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array

from saesweep.report.intervals import Interval, Variance, combined, document_variance, interval, seed_variance
from saesweep.report.jackknife import Replicates
from saesweep.report.matching import MATCH, UNKNOWN, Secant, SlopeRange, lagrange_weights, moved_along, secants, value_at
from saesweep.storage.sweep_table import targets


@dataclass(frozen=True)
class Point:
    """The SAEs of one curve with the same target: one per seed."""

    sparsity: float | None  # their target L0; None where the coefficient is fixed
    saes: list[Replicates]

    @cached_property
    def log_l0(self) -> list[float]:
        """Of each seed."""
        return [math.log(sae.l0[0]) for sae in self.saes]

    @cached_property
    def l0(self) -> float:
        """The geometric mean over seeds."""
        return float(f"{math.exp(np.mean(self.log_l0)):.12g}")

    @property
    def label(self) -> float:
        """The target L0, or the measured L0 where that is far from the target."""
        if self.sparsity is not None and self.sparsity > 0 and same_l0(self.l0, self.sparsity):
            return self.sparsity
        return float(f"{self.l0:.3g}")

    def seed_variance(self, slope: float) -> Variance | None:
        """Between the seeds, each moved along the slope to their mean L0; None of a single seed."""
        if len(self.saes) == 1:
            return None
        middle = math.log(self.l0)
        values = zip(self.saes, self.log_l0, strict=True)
        return seed_variance([float(sae.value[0]) - slope * (x - middle) for sae, x in values])

    def l0_error(self, slope: float) -> float:
        """Error bound of the mean over seeds whose L0 differ by more than two matched L0 may."""
        apart = max(self.log_l0) - min(self.log_l0)
        return abs(slope) * apart / 2 if apart > 2 * math.log(1 + MATCH) else 0.0


def same_l0(l0: float, other: float) -> bool:
    """Within MATCH of each other."""
    return abs(math.log(l0 / other)) <= math.log(1 + MATCH)


class PointShare(NamedTuple):
    """The weight of one point in a curve's value, and the seeds of that point."""

    weight: float
    seeds: int
    variance: Variance | None  # of single SAEs; None of one seed


class CurveValue(NamedTuple):
    """The value of a curve at an L0, or its mean over several."""

    rows: Array  # jackknife replicates: on all documents, then without each
    weights: Array  # of the documents
    error: float  # bound on the error of matching L0
    measured: Point | None  # the point at this L0; None: interpolated, or a mean
    shares: dict[int, PointShare]  # by the index of the curve's point
    slope_of: str = "own"  # the curves whose slope moved the value; "unknown": not moved

    @property
    def value(self) -> float:
        return float(self.rows[0])

    @property
    def seeds(self) -> int:
        """The smallest number of seeds of the points whose weight is over a tenth of the largest."""
        largest = max(abs(part.weight) for part in self.shares.values())
        return min(part.seeds for part in self.shares.values() if abs(part.weight) > 0.1 * largest)

    def seed_variances(self) -> list[Variance]:
        """Of each point's share of the value; empty where one of the points has a single seed."""
        if self.seeds == 1:
            return []
        known = [(part, part.variance) for part in self.shares.values() if part.variance is not None]
        return [Variance(part.weight**2 * variance.value / part.seeds, variance.df) for part, variance in known]


@dataclass(frozen=True)
class Curve:
    """One architecture at one hook point: the mean over its seeds, by L0."""

    arch: str
    points: list[Point]
    texts: frozenset[int]  # indices of the held-out texts it was measured on, as far as known
    slopes: Callable[[float], SlopeRange] = lambda log_l0: UNKNOWN  # of a point without neighbours
    _values: dict[tuple[float, float | None], CurveValue | None] = field(default_factory=dict)

    @staticmethod
    def each(points: pd.DataFrame, measured: Sequence[Replicates]) -> list[Curve]:
        """Of each architecture. points: rows of sweep_table.table at one hook point, and their replicates."""
        target, sparsity = targets(points).tolist(), points["sparsity"].astype(float).tolist()
        rows: dict[str, list[int]] = {}
        for i, arch in enumerate(points["arch"].tolist()):
            rows.setdefault(arch, []).append(i)
        return [Curve.through(arch, [target[i] for i in own], [sparsity[i] for i in own], [measured[i] for i in own])
                for arch, own in rows.items()]

    @staticmethod
    def through(arch: str, target: Sequence[str], sparsity: Sequence[float], measured: Sequence[Replicates]) -> Curve:
        """target: of each SAE, as in sweep_table.targets. sparsity: NaN where the coefficient is fixed."""
        by_target: dict[str, Point] = {}
        for name, x, one in zip(target, sparsity, measured, strict=True):
            by_target.setdefault(name, Point(None if math.isnan(x) else x, [])).saes.append(one)
        texts = frozenset(one.text for one in measured) - {-1}
        return Curve(arch, sorted(by_target.values(), key=lambda point: point.l0), texts)

    def point_at(self, l0: float) -> Point | None:
        """The point measured at this L0."""
        nearest = min(self.points, key=lambda point: abs(math.log(point.l0 / l0)))
        return nearest if same_l0(nearest.l0, l0) else None

    def with_slopes(self, slopes: Callable[[float], SlopeRange]) -> Curve:
        """The same curve, whose points without neighbours move along these slopes. slopes: the range at a log L0."""
        return Curve(self.arch, self.points, self.texts, slopes)

    def secants(self) -> list[Secant]:
        log_l0, value, scale = self._arrays(range(len(self.points)), rows=1)
        return secants(log_l0[0], value[0], scale)

    def value_at(self, l0: float, reach: float | None = None) -> CurveValue | None:
        """None where the curve has no value at this L0. reach: the largest distance in log L0 of a measured point."""
        if (l0, reach) not in self._values:
            self._values[l0, reach] = self._value_at(math.log(l0), reach)
        return self._values[l0, reach]

    def _value_at(self, wanted: float, reach: float | None) -> CurveValue | None:
        found = value_at(*self._arrays(range(len(self.points)), rows=1), wanted, self.slopes(wanted), reach)
        if found is None:
            return None
        used = sorted(found.shares)
        rows = min(len(sae.value) for i in used for sae in self.points[i].saes)
        if rows > 1:
            log_l0, value, _ = self._arrays(used, rows)
            found = found._replace(rows=(lagrange_weights(log_l0, wanted) * value).sum(1) if len(used) > 1
                                   else moved_along(log_l0[:, 0], value[:, 0], found.slope, wanted))
        parts = [(i, self.points[i], weight) for i, weight in found.shares.items()]
        shares = {i: PointShare(weight, len(point.saes), point.seed_variance(found.slope)) for i, point, weight in parts}
        error = found.error + max(self.points[i].l0_error(found.slope) for i in used)
        documents = self.points[used[0]].saes[0].weights[: rows - 1]
        measured = None if found.measured is None else self.points[found.measured]
        return CurveValue(found.rows, documents, error, measured, shares, found.slope_of)

    def _arrays(self, points: Sequence[int], rows: int) -> tuple[Array, Array, Array]:
        """log L0 and value [rows, points], means over seeds; and the scale of the values [points]."""
        chosen = [self.points[i].saes for i in points]
        with np.errstate(divide="ignore", invalid="ignore"):  # latents that are active in one document alone
            log_l0 = np.stack([np.mean([np.log(sae.l0[:rows]) for sae in saes], axis=0) for saes in chosen], axis=1)
        value = np.stack([np.mean([sae.value[:rows] for sae in saes], axis=0) for saes in chosen], axis=1)
        return log_l0, value, np.array([max(sae.scale for sae in saes) for saes in chosen])

    def summary(self) -> dict[str, Any]:
        """For pareto.json and the figures: the mean of each point and its interval."""
        means = [float(np.mean([sae.value[0] for sae in point.saes])) for point in self.points]
        each = [_interval_of(point, mean) for point, mean in zip(self.points, means, strict=True)]
        return {
            "arch": self.arch, "sparsity": [p.sparsity for p in self.points], "l0": [p.l0 for p in self.points], "mean": means,
            "low": [i and i.low for i in each], "high": [i and i.high for i in each],
        }


def _interval_of(point: Point, mean: float) -> Interval | None:
    rows = min(len(sae.value) for sae in point.saes)
    value = np.mean([sae.value[:rows] for sae in point.saes], axis=0)
    shares = {0: PointShare(1.0, len(point.saes), point.seed_variance(0.0))}
    found = CurveValue(value, point.saes[0].weights[: rows - 1], 0.0, point, shares)
    return interval(mean, [document_variance(found.rows, found.weights), combined(found.seed_variances())])


def weighted_mean(values: Sequence[CurveValue], weights: Sequence[float]) -> CurveValue:
    """The mean of one curve over several L0."""
    size = min(len(value.rows) for value in values)
    rows = np.sum([weight * value.rows[:size] for weight, value in zip(weights, values, strict=True)], axis=0)
    error = sum(weight * value.error for weight, value in zip(weights, values, strict=True))
    return CurveValue(rows, values[0].weights[: size - 1], error, None, _summed_shares(values, weights))


def _summed_shares(values: Sequence[CurveValue], weights: Sequence[float]) -> dict[int, PointShare]:
    """A point in several values counts once, with the sum of its weights: its seeds are the same in all of them."""
    found: dict[int, PointShare] = {}
    for weight, value in zip(weights, values, strict=True):
        for i, part in value.shares.items():
            before = found.get(i, part._replace(weight=0.0))
            variance = max((v for v in (before.variance, part.variance) if v is not None), default=None)
            found[i] = PointShare(before.weight + weight * part.weight, part.seeds, variance)
    return found
