"""What the raters found: shares of yes and mean ratings, by architecture and for the control.

    share of yes    each latent counts once, with the share of yes among its raters; Wilson's interval of so many latents
    mean rating     of no = 0, maybe = 1, yes = 2, over all ratings; percentile bootstrap over latents within raters
    differences     Newcombe's for shares; for means, of the bootstrap draws of both

Skipped latents and second ratings of a latent by the same rater do not count. The intervals are about other latents of the
same SAEs, rated by the same people.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from saesweep.study.people.proportions import NOTHING, Estimate, newcombe, percentile, wilson
from saesweep.study.people.read import Rating
from saesweep.study.people.settings import RateSettings

VALUES = {"no": 0, "maybe": 1, "yes": 2}


class Group(NamedTuple):
    """The latents of one architecture, of all SAEs, or of the control."""

    latents: int
    ratings: int
    yes: Estimate
    mean: Estimate
    draws: Float[np.ndarray, " draws"]  # of the mean, by bootstrap; empty where there is no interval


def counted(rows: Iterable[Rating]) -> list[Rating]:
    return [row for row in rows if row.answer in VALUES and not row.repeated]


def yes_by_latent(rows: Iterable[Rating]) -> dict[tuple[str, str, int], float]:
    """(path, control, latent) -> the share of yes among its raters; rows: ratings that count."""
    answers: dict[tuple[str, str, int], list[bool]] = {}
    for row in rows:
        answers.setdefault(row.of, []).append(row.answer == "yes")
    return {latent: float(np.mean(several)) for latent, several in answers.items()}


def group(rows: Sequence[Rating], draws: int, random: np.random.Generator) -> Group:
    """rows: ratings that count."""
    yes = list(yes_by_latent(rows).values())
    share = wilson(float(np.mean(yes)), len(yes)) if yes else NOTHING
    mean = float(np.mean([VALUES[row.answer] for row in rows])) if rows else math.nan
    drawn = _bootstrap(rows, draws, random)
    return Group(len(yes), len(rows), share, _ends(mean, drawn), drawn)


def _bootstrap(rows: Sequence[Rating], draws: int, random: np.random.Generator) -> Float[np.ndarray, " draws"]:
    """Means of latents that are drawn with replacement from those of each rater; empty where a rater has only one."""
    raters = dict.fromkeys(row.rater for row in rows)
    each = [np.array([VALUES[row.answer] for row in rows if row.rater == rater], float) for rater in raters]
    if not each or min(map(len, each)) < 2:
        return np.zeros(0)
    sums = [values[random.integers(0, len(values), (draws, len(values)))].sum(1) for values in each]
    return np.sum(sums, axis=0) / len(rows)


def _ends(value: float, draws: Float[np.ndarray, " draws"]) -> Estimate:
    return percentile(value, draws) if len(draws) else NOTHING._replace(value=value)


def difference(a: Group, b: Group) -> dict[str, Any]:
    """a - b, of other latents."""
    draws = a.draws - b.draws if len(a.draws) and len(b.draws) else np.zeros(0)
    return {"yes": newcombe(a.yes, b.yes), "mean": _ends(a.mean.value - b.mean.value, draws)}


def verdict(found: Estimate, delta: float) -> str:
    """better, worse, equal (within delta), open (not told apart), or none."""
    if np.isnan([found.low, found.high]).any():
        return "none"
    if found.low > 0 or found.high < 0:
        return "better" if found.low > 0 else "worse"
    return "equal" if -delta <= found.low and found.high <= delta else "open"


def shares(rows: Iterable[Rating], settings: RateSettings) -> dict[str, Any]:
    """`architectures`, `differences` of each pair, and `control` against all SAEs. rows: all ratings."""
    rated, random = counted(rows), np.random.default_rng(settings.seed)
    trained = [row for row in rated if not row.control]
    archs = sorted({row.arch for row in trained})
    groups = {arch: group([row for row in trained if row.arch == arch], settings.draws, random) for arch in archs}
    pairs = [{"a": a, "b": b, **difference(groups[a], groups[b])} for a, b in combinations(archs, 2)]
    everything = group(trained, settings.draws, random)
    control = group([row for row in rated if row.control], settings.draws, random)
    gap = difference(everything, control)
    return {
        "architectures": {arch: _described(one) for arch, one in groups.items()},
        "differences": [pair | {"verdict": verdict(pair["yes"], settings.delta)} for pair in pairs],
        "trained": _described(everything),
        "control": _described(control) | {"difference": gap, "verdict": verdict(gap["yes"], settings.delta)},
    }


def _described(one: Group) -> dict[str, Any]:
    return {"latents": one.latents, "ratings": one.ratings, "yes": one.yes, "mean": one.mean}
