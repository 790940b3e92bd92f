"""An architecture at one place as a curve: its SAEs by L0, the mean over seeds, and what it says at any L0."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array

from saesweep.report.intervals import Interval, Variance, interval, of_documents, of_seeds, together
from saesweep.report.jackknife import Numbers
from saesweep.report.matching import MATCH, lagrange, value_at
from saesweep.results.sweep_table import aims


class Point(NamedTuple):
    """The SAEs of one curve that were to reach the same: one per seed."""

    sparsity: float | None  # their target L0; None where the coefficient was fixed
    saes: list[Numbers]

    @property
    def log_l0(self) -> list[float]:
        """Of each seed."""
        return [math.log(sae.l0[0]) for sae in self.saes]

    @property
    def l0(self) -> float:
        """The mean over seeds of its logarithm, as an L0."""
        return float(f"{math.exp(np.mean(self.log_l0)):.12g}")

    @property
    def label(self) -> float:
        """The L0 that it is called by: its target, or the L0 it has where that is far from the target."""
        met = self.sparsity is not None and self.sparsity > 0 and within(self.l0, self.sparsity)
        return self.sparsity if met else float(f"{self.l0:.3g}")

    def spread(self, slope: float) -> Variance | None:
        """Between the seeds, at the L0 of their mean; None of one."""
        if len(self.saes) == 1:
            return None
        middle = math.log(self.l0)
        values = zip(self.saes, self.log_l0, strict=True)
        return of_seeds([float(sae.value[0]) - slope * (x - middle) for sae, x in values])

    def error(self, slope: float) -> float:
        """Of the mean over seeds that lie further apart in L0 than a comparison allows."""
        apart = max(self.log_l0) - min(self.log_l0)
        return abs(slope) * apart / 2 if apart > 2 * math.log(1 + MATCH) else 0.0


def within(l0: float, other: float) -> bool:
    """At the same L0."""
    return abs(math.log(l0 / other)) <= math.log(1 + MATCH)


class Seeds(NamedTuple):
    """How much of a reading is one point's, and how far its seeds are apart."""

    share: float
    count: int
    spread: Variance | None  # of single SAEs; None of one seed


class Reading(NamedTuple):
    """What a curve says at an L0, or on average over several."""

    rows: Array  # of all documents, then of all but one
    weights: Array  # of the documents
    error: float  # of the match in L0
    own: Point | None  # that was measured there; None: interpolated, or an average
    seeds: dict[int, Seeds]  # by the number of the curve's point

    @property
    def value(self) -> float:
        return float(self.rows[0])

    @property
    def count(self) -> int:
        """Of the seeds, the fewest of the points that matter."""
        most = max(abs(part.share) for part in self.seeds.values())
        return min(part.count for part in self.seeds.values() if abs(part.share) > 0.1 * most)

    def of_seeds(self) -> list[Variance]:
        """What the seeds vary of it; nothing where a point that matters has one seed alone."""
        if self.count == 1:
            return []
        known = [part for part in self.seeds.values() if part.spread is not None]
        return [Variance(part.share**2 * part.spread.value / part.count, part.spread.df) for part in known]


@dataclass(frozen=True)
class Curve:
    """One architecture at one place; the mean over its seeds, by L0."""

    arch: str
    points: list[Point]
    texts: frozenset[int]  # those known that it was measured on
    _read: dict[float, Reading | None] = field(default_factory=dict)

    @staticmethod
    def of(arch: str, points: pd.DataFrame, measured: Sequence[Numbers]) -> Curve:
        own, aim = (points["arch"] == arch).to_numpy(), aims(points).to_numpy()
        found = []
        for one in dict.fromkeys(aim[own]):
            here = np.flatnonzero(own & (aim == one))
            target = float(points["sparsity"].iloc[here[0]])
            found.append(Point(None if math.isnan(target) else target, [measured[i] for i in here]))
        texts = frozenset(measured[i].text for i in np.flatnonzero(own)) - {-1}
        return Curve(arch, sorted(found, key=lambda point: point.l0), texts)

    def own(self, l0: float) -> Point | None:
        """The point that was measured at about this L0."""
        nearest = min(self.points, key=lambda point: abs(math.log(point.l0 / l0)))
        return nearest if within(nearest.l0, l0) else None

    def at(self, l0: float) -> Reading | None:
        """None where the curve has no value at this L0."""
        if l0 not in self._read:
            self._read[l0] = self._at(math.log(l0))
        return self._read[l0]

    def _at(self, wanted: float) -> Reading | None:
        found = value_at(*self._arrays(range(len(self.points)), rows=1), wanted)
        if found is None:
            return None
        used = sorted(found.parts)
        rows = min(len(sae.value) for i in used for sae in self.points[i].saes)
        if rows > 1:
            log_l0, value, _ = self._arrays(used, rows)
            shares = lagrange(log_l0, wanted) if len(used) > 1 else np.ones_like(value)
            found = found._replace(rows=(shares * value).sum(1))
        parts = [(i, self.points[i], share) for i, share in found.parts.items()]
        seeds = {i: Seeds(share, len(point.saes), point.spread(found.slope)) for i, point, share in parts}
        error = found.error + max(self.points[i].error(found.slope) for i in used)
        weights = self.points[used[0]].saes[0].weights[: rows - 1]
        return Reading(found.rows, weights, error, None if found.own is None else self.points[found.own], seeds)

    def _arrays(self, points: Sequence[int], rows: int) -> tuple[Array, Array, Array]:
        """log L0 and value [rows, points], means over seeds; and the values' scale [points]."""
        chosen = [self.points[i].saes for i in points]
        with np.errstate(divide="ignore", invalid="ignore"):  # active in one document alone
            log_l0 = np.stack([np.mean([np.log(sae.l0[:rows]) for sae in saes], axis=0) for saes in chosen], axis=1)
        value = np.stack([np.mean([sae.value[:rows] for sae in saes], axis=0) for saes in chosen], axis=1)
        return log_l0, value, np.array([max(sae.scale for sae in saes) for saes in chosen])

    def described(self) -> dict[str, Any]:
        """For the figures: each point's mean, with its interval."""
        means = [float(np.mean([sae.value[0] for sae in point.saes])) for point in self.points]
        each = [_interval_of(point, mean) for point, mean in zip(self.points, means, strict=True)]
        return {
            "arch": self.arch, "sparsity": [p.sparsity for p in self.points], "l0": [p.l0 for p in self.points], "mean": means,
            "low": [i and i.low for i in each], "high": [i and i.high for i in each],
        }


def _interval_of(point: Point, mean: float) -> Interval | None:
    rows = min(len(sae.value) for sae in point.saes)
    value = np.mean([sae.value[:rows] for sae in point.saes], axis=0)
    seeds = {0: Seeds(1.0, len(point.saes), point.spread(0.0))}
    reading = Reading(value, point.saes[0].weights[: rows - 1], 0.0, point, seeds)
    return interval(mean, [of_documents(reading.rows, reading.weights), together(reading.of_seeds())])


def averaged(readings: Sequence[Reading], shares: Sequence[float]) -> Reading:
    """Of one curve at several L0: the sum of share * value."""
    size = min(len(reading.rows) for reading in readings)
    rows = sum(share * reading.rows[:size] for share, reading in zip(shares, readings, strict=True))
    error = sum(share * reading.error for share, reading in zip(shares, readings, strict=True))
    return Reading(rows, readings[0].weights[: size - 1], error, None, _added(readings, shares))


def _added(readings: Sequence[Reading], shares: Sequence[float]) -> Mapping[int, Seeds]:
    """A point that is in several readings counts once, with all of its shares: its seeds are the same in all."""
    found: dict[int, Seeds] = {}
    for share, reading in zip(shares, readings, strict=True):
        for i, part in reading.seeds.items():
            before = found.get(i, part._replace(share=0.0))
            spread = max((s for s in (before.spread, part.spread) if s is not None), default=None)
            found[i] = Seeds(before.share + share * part.share, part.count, spread)
    return found
