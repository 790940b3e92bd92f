"""Two architectures at the same L0.

An architecture at one hook point is a curve through its SAEs by log L0; where it has a value at an L0, which SAEs that value
is made of and the bound on its error are the rules of the report (report/matching.py, report/measured_curve.py).

    difference   a - b, within each seed that both have; where they share no seed, of the means over their seeds, as one seed
    mean         of the differences over log L0 (trapezoid rule), within the seeds that both have at all L0, else as one seed
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from saesweep.report.common_l0 import shared_l0
from saesweep.report.compare import on_one_text, trapezoid
from saesweep.report.jackknife import Replicates
from saesweep.report.measured_curve import Curve
from saesweep.study.comparison.contrasts import Numbers, Terms, contrast
from saesweep.study.comparison.measured import Sae
from saesweep.study.comparison.verdicts import verdict

Seed = int | None  # None: of the means over the seeds


class Difference(NamedTuple):
    """At one L0."""

    a: dict[Seed, Terms]  # the coefficients of the SAEs in the value
    b: dict[Seed, Terms]
    errors: dict[Seed, float]


@dataclass(frozen=True)
class Curves:
    """All architectures at one hook point, of one number."""

    means: dict[str, Curve]  # over seeds
    seeds: dict[tuple[str, int], Curve]
    index: dict[int, int]  # row of the SAE, by the id of its Replicates

    @staticmethod
    def of(saes: Sequence[Sae], numbers: Numbers, texts: Sequence[int]) -> Curves:
        """saes: at one hook point, those that have the number."""
        points = {one.row: _point(one.l0, numbers[one.row], texts[one.row]) for one in saes}

        def curve(arch: str, seed: int | None = None) -> Curve:
            own = [one for one in saes if one.arch == arch and seed in (None, one.seed)]
            target, sparsity = [one.target for one in own], [one.sparsity for one in own]
            return Curve.through(arch, target, sparsity, [points[one.row] for one in own])

        means = {arch: curve(arch) for arch in dict.fromkeys(one.arch for one in saes)}
        seeds = {key: curve(*key) for key in dict.fromkeys((one.arch, one.seed) for one in saes)}
        return Curves(means, seeds, {id(point): i for i, point in points.items()})

    def pairs(self) -> list[tuple[str, str]]:
        """Of architectures that were measured on the same text."""
        return [(a, b) for a, b in combinations(self.means, 2) if on_one_text([self.means[a], self.means[b]])]

    def apart(self) -> list[list[str]]:
        """The pairs that were measured on different text, which are not compared."""
        compared = self.pairs()
        return [[a, b] for a, b in combinations(self.means, 2) if (a, b) not in compared]

    def differences(self, a: str, b: str) -> dict[float, tuple[float, Difference]]:
        """By the label of the L0 (its target): the L0 and the coefficients."""
        found = {}
        for label, l0 in shared_l0([self.means[a], self.means[b]]).items():
            if self.means[a].value_at(l0) is not None and self.means[b].value_at(l0) is not None:
                found[label] = (l0, self._difference(a, b, l0))
        return found

    def _difference(self, a: str, b: str, l0: float) -> Difference:
        paired = [seed for arch, seed in self.seeds if arch == a and (b, seed) in self.seeds]
        found = Difference({}, {}, {})
        for seed in paired:
            self._add(found, seed, self.seeds[a, seed], self.seeds[b, seed], l0)
        self._add(found, None, self.means[a], self.means[b], l0)
        return found

    def _add(self, found: Difference, seed: Seed, a: Curve, b: Curve, l0: float) -> None:
        """One seed, where both curves have a value at the L0."""
        value_a, value_b = a.value_at(l0), b.value_at(l0)
        if value_a is None or value_b is None:
            return
        found.errors[seed] = value_a.error + value_b.error
        for side, curve, value in ((found.a, a, value_a), (found.b, b, value_b)):
            points = {i: curve.points[i].saes for i in value.shares}
            side[seed] = {self.index[id(sae)]: value.shares[i].weight / len(saes) for i, saes in points.items() for sae in saes}

    def interpolated(self, archs: Sequence[str], l0: float) -> str | None:
        """Those of the architectures that have no SAE at this L0."""
        values = {arch: self.means[arch].value_at(l0) for arch in archs}
        return ", ".join(arch for arch, value in values.items() if value is not None and value.measured is None) or None


def _point(l0: float, number: Any, text: int) -> Replicates:
    return Replicates(np.array([l0]), np.array([number.value]), np.empty(0), text, abs(number.value))


def compare(curves: Curves, numbers: Numbers, better: int, delta: float) -> dict[str, list[dict[str, Any]]]:
    """`gaps`, a row per pair and L0, and `means`, a row per pair that shares at least two L0."""
    gaps, means = [], []
    for a, b in curves.pairs():
        found = curves.differences(a, b)
        for label, (l0, difference) in found.items():
            row = {"a": a, "b": b, "sparsity": label, "l0": l0, "interpolated": curves.interpolated([a, b], l0)}
            gaps.append(row | _row([difference], [1.0], numbers, better, delta))
        if len(found) > 1:
            weights = trapezoid(np.log([l0 for l0, _ in found.values()]))
            row = _row([difference for _, difference in found.values()], weights, numbers, better, delta)
            means.append({"a": a, "b": b, "over_l0": list(found), **row})
    return {"gaps": gaps, "means": means}


def _row(
    differences: Sequence[Difference], weights: Sequence[float], numbers: Numbers, better: int, delta: float
) -> dict[str, Any]:
    """Values, difference, interval and verdict of a weighted sum of differences: within the seeds that all of them have."""
    shared = [seed for seed in differences[0].errors if seed is not None and all(seed in one.errors for one in differences)]
    seeds: list[Seed] = [*shared] or [None]
    a = [summed([one.a[seed] for one in differences], weights) for seed in seeds]
    b = [summed([one.b[seed] for one in differences], weights) for seed in seeds]
    both = [summed([one, other], [1, -1]) for one, other in zip(a, b, strict=True)]
    errors = [sum(w * one.errors[seed] for w, one in zip(weights, differences, strict=True)) for seed in seeds]
    error = float(np.mean(errors))
    found = contrast(both, numbers, error)
    values = {"value_a": contrast(a, numbers).estimate, "value_b": contrast(b, numbers).estimate, "error": error}
    return {**values, **found.as_dict(), **verdict(found, better, delta), "holm": False}


def summed(terms: Sequence[Mapping[int, float]], weights: Sequence[float]) -> dict[int, float]:
    """The weighted sum of coefficients."""
    found: dict[int, float] = {}
    for weight, one in zip(weights, terms, strict=True):
        for i, c in one.items():
            found[i] = found.get(i, 0.0) + weight * c
    return found
