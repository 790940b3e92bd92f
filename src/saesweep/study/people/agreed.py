"""How far the raters agree, with each other and with themselves; intervals by bootstrap over latents."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from saesweep.study.people.agreement import cohen, fleiss, krippendorff
from saesweep.study.people.proportions import NOTHING, Estimate, percentile, wilson
from saesweep.study.people.read import Rating
from saesweep.study.people.settings import RateSettings
from saesweep.study.people.shares import VALUES, counted

K = len(VALUES)
Table = Float[np.ndarray, "raters items"]  # 0, 1, 2; nan where a rater did not rate a latent


def agreed(rows: Sequence[Rating], settings: RateSettings) -> dict[str, Any]:
    """rows: all ratings. Measured on the latents that all raters were given."""
    common = [row for row in counted(rows) if row.common]
    raters = sorted({row.rater for row in common})
    table = _table(common, raters)
    whole = _both(table) if len(raters) > 1 else table[:, :0]
    pairs = [(raters[a], raters[b], _both(table[[a, b]])) for a, b in combinations(range(len(raters)), 2)]
    return {
        "raters": raters,
        "latents": int(((~np.isnan(table)).sum(0) >= 2).sum()),
        "fleiss": {"latents": whole.shape[1], "kappa": over_items(_fleiss, whole, settings)},
        "krippendorff_ordinal": over_items(lambda one: krippendorff(one, K, "ordinal"), table, settings),
        "cohen_quadratic": [{"a": a, "b": b, "latents": both.shape[1], "kappa": over_items(_cohen, both, settings)}
                            for a, b, both in pairs],
        "with_oneself": with_oneself(rows),
    }


def _table(common: Sequence[Rating], raters: Sequence[str]) -> Table:
    latents = {latent: n for n, latent in enumerate(dict.fromkeys(row.of for row in common))}
    table = np.full((len(raters), len(latents)), np.nan)
    for row in common:
        table[raters.index(row.rater), latents[row.of]] = VALUES[row.answer]
    return table


def _both(table: Table) -> Table:
    return table[:, ~np.isnan(table).any(0)]


def _fleiss(table: Table) -> float:
    return fleiss(np.stack([(table == category).sum(0) for category in range(K)], axis=1))


def _cohen(table: Table) -> float:
    a, b = table.astype(int)
    return cohen(a, b, K, "quadratic")


def over_items(measure: Callable[[Table], float], table: Table, settings: RateSettings) -> Estimate:
    """The measure with a percentile interval over items drawn with replacement; without one where few draws have a value."""
    items = table.shape[1]
    if items < 2:
        return NOTHING
    random, value = np.random.default_rng(settings.seed), measure(table)
    draws = np.array([measure(table[:, random.integers(0, items, items)]) for _ in range(settings.draws)])
    if np.isnan(value) or np.isnan(draws).mean() > 0.5:
        return NOTHING._replace(value=value)
    return percentile(value, draws)


def with_oneself(rows: Iterable[Rating]) -> dict[str, Any]:
    """The latents that came twice and were answered twice without a skip: how many got the same answer."""
    answered = [row for row in rows if row.answer in VALUES]
    first = {(row.rater, row.of): row.answer for row in answered if not row.repeated}
    twice = [(first[row.rater, row.of], row.answer) for row in answered if row.repeated and (row.rater, row.of) in first]
    same = sum(a == b for a, b in twice)
    share = wilson(same / len(twice), len(twice)) if twice else NOTHING
    return {"latents": len(twice), "same": same, "share": share}
