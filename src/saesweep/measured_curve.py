"""An architecture at one place as a curve: its SAEs by L0, the mean over seeds, and what it says at any L0."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array

from saesweep import intervals
from saesweep.intervals import Variance, of_documents, of_seeds
from saesweep.jackknife import Numbers
from saesweep.matching import MATCH, Matched, value_at
from saesweep.outputs import aims


class Point(NamedTuple):
    """The SAEs of one curve that were to reach the same: one per seed."""

    sparsity: float | None  # their target L0; None where the coefficient was fixed
    saes: list[Numbers]

    @property
    def l0(self) -> float:
        return float(np.mean([sae.l0[0] for sae in self.saes]))

    @property
    def label(self) -> float:
        """The L0 that it is called by: its target, or the L0 it has where that is far from the target."""
        met = self.sparsity is not None and abs(math.log(self.l0 / self.sparsity)) <= math.log(1 + MATCH)
        return self.sparsity if met else float(f"{self.l0:.3g}")

    def spread(self, slope: float) -> Variance | None:
        """Between the seeds, at the L0 of their mean; None of one."""
        if len(self.saes) == 1:
            return None
        log_l0 = np.log([sae.l0[0] for sae in self.saes])
        return of_seeds([float(sae.value[0]) - slope * (x - log_l0.mean()) for sae, x in zip(self.saes, log_l0, strict=True)])


class Reading(NamedTuple):
    """What a curve says at an L0, or on average over several."""

    rows: Array  # of all documents, then of all but one
    weights: Array  # of the documents
    error: float  # of interpolation, at most
    interpolated: bool
    seeds: int
    spread: Variance | None  # between SAEs that differ in their seed alone

    def variances(self, borrowed: Variance | None = None) -> list[Variance]:
        """borrowed: the spread between seeds of another curve, where this one has a single seed."""
        found, spread = [of_documents(self.rows, self.weights)], self.spread or borrowed
        return [v for v in (*found, spread and spread._replace(value=spread.value / self.seeds)) if v is not None]


@dataclass(frozen=True)
class Curve:
    """One architecture at one place; the mean over its seeds, by L0."""

    arch: str
    points: list[Point]
    texts: frozenset[int]  # those known that it was measured on

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

    def own(self, label: float) -> Point | None:
        """The point that was measured at about this L0."""
        nearest = min(self.points, key=lambda point: abs(math.log(point.l0 / label)))
        return nearest if abs(math.log(nearest.l0 / label)) <= math.log(1 + MATCH) else None

    def at(self, l0: float) -> Reading | None:
        """None where the curve has no value at this L0."""
        rows = min(len(sae.value) for point in self.points for sae in point.saes)
        log_l0 = np.stack([np.mean([np.log(sae.l0[:rows]) for sae in p.saes], axis=0) for p in self.points], axis=1)
        value = np.stack([np.mean([sae.value[:rows] for sae in p.saes], axis=0) for p in self.points], axis=1)
        found = value_at(log_l0, value, math.log(l0))
        if found is None:
            return None
        weights = self.points[0].saes[0].weights[: rows - 1]
        spread = self._spread(found)
        seeds = min(len(self.points[i].saes) for i in _most_of(found)) if spread else 1
        return Reading(found.rows, weights, found.error, found.interpolated, seeds, spread)

    def _spread(self, found: Matched) -> Variance | None:
        """Of one seed's value there; unless each point that matters has several seeds, it is not known."""
        parts = [(share, self.points[i].spread(found.slope)) for i, share in found.parts.items()]
        if any(self.points[i].spread(0.0) is None for i in _most_of(found)):
            return None
        return _sum([v._replace(value=share**2 * v.value) for share, v in parts if v is not None])

    def described(self) -> dict[str, Any]:
        """For the figures: each point's mean, with its interval."""
        each = []
        for point in self.points:
            rows = min(len(sae.value) for sae in point.saes)
            value = np.mean([sae.value[:rows] for sae in point.saes], axis=0)
            spread = point.spread(0.0)
            own = Reading(value, point.saes[0].weights[: rows - 1], 0.0, False, len(point.saes), spread)
            each.append((point, intervals.interval(float(value[0]), own.variances()), float(value[0])))
        return {
            "arch": self.arch, "sparsity": [p.sparsity for p in self.points], "l0": [p.l0 for p in self.points],
            "mean": [mean for _, _, mean in each],
            "low": [i and i.low for _, i, _ in each], "high": [i and i.high for _, i, _ in each],
        }


def _most_of(found: Matched) -> list[int]:
    """The points that a value is made of: those next to it, not the one that only bends the curve."""
    return [i for i, share in found.parts.items() if share > 0.1]


def averaged(readings: Sequence[Reading], shares: Sequence[float]) -> Reading:
    """Of one curve at several L0: the sum of share * value."""
    rows = sum(share * reading.rows for share, reading in zip(shares, readings, strict=True))
    error = sum(share * reading.error for share, reading in zip(shares, readings, strict=True))
    spreads = [reading.spread for reading in readings]
    spread = None
    if None not in spreads:
        spread = _sum([v._replace(value=share**2 * v.value) for share, v in zip(shares, spreads, strict=True)])
    first = readings[0]
    return Reading(rows, first.weights, error, any(r.interpolated for r in readings), min(r.seeds for r in readings), spread)


def _sum(variances: Sequence[Variance]) -> Variance:
    total = sum(v.value for v in variances)
    return Variance(total, total**2 / sum(v.value**2 / v.df for v in variances) if total else min(v.df for v in variances))
