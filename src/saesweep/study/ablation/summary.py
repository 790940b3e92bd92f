"""The numbers of ablations by group of seeds: a row per kind of ablation.

Draws are averaged, and their range is given. Intervals are over documents, and over seeds where there are several.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from saesweep.storage.curves import VARIANT
from saesweep.study.ablation.latents import CONTROLS, FREQUENT, MEAN, ZERO
from saesweep.study.ablation.results import SHARES, Replicates, Row, columns, of_rows

GROUP = ["sweep", "model", "site", "layer", "arch", VARIANT, "sparsity", "coefficient"]


def summary(found: Sequence[Row]) -> pd.DataFrame:
    """A row per group of seeds and kind of ablation; `frequent - CONTROL`: what the frequent latents add beyond a control."""
    groups = dict[tuple, list[Row]]()
    for one in found:
        groups.setdefault(_alike(one.names), []).append(one)
    return of_rows([
        {**{key: mine[0].names[key] for key in GROUP}, **row} for mine in groups.values() for row in _of_group(mine)])


def _alike(names: Mapping[str, Any]) -> tuple:
    """What the seeds of a group share; the L0 of a fixed coefficient is that of each seed."""
    return tuple(names[key] for key in GROUP if key != "sparsity" or names["coefficient"] is None)


def _of_group(mine: Sequence[Row]) -> list[dict[str, Any]]:
    kinds = list(dict.fromkeys((one.names["ablated"], one.names["set_to"]) for one in mine))
    by_kind = {kind: [one for one in mine if (one.names["ablated"], one.names["set_to"]) == kind] for kind in kinds}
    made = []
    for (ablated, set_to), own in by_kind.items():
        means = {key: float(np.mean([one.value[key].rows[0] for one in own if key in one.value])) for key in own[0].value}
        parts = {key: float(np.mean([one.shares[key] for one in own])) for key in SHARES}
        made.append({"ablated": ablated, "set_to": set_to, "seeds": len(_by_sae(own)), **parts,
                     **columns(means, _differences(own)), **_ranges(own)})
    for control in CONTROLS:
        for set_to in (ZERO, MEAN):
            if (own := by_kind.get((control, set_to))) and (frequent := by_kind.get((FREQUENT, set_to))):
                mean = _differences(frequent)
                less = {key: [Replicates(a.rows - b.rows, a.weights) for a, b in zip(mean[key], others, strict=True)]
                        for key, others in _differences(own).items()}
                made.append({"ablated": f"{FREQUENT} - {control}", "set_to": set_to, "seeds": len(_by_sae(own)),
                             **columns({}, less)})
    return made


def _by_sae(own: Sequence[Row]) -> dict[str, list[Row]]:
    found = dict[str, list[Row]]()
    for one in own:
        found.setdefault(one.names["path"], []).append(one)
    return found


def _differences(own: Sequence[Row]) -> dict[str, list[Replicates]]:
    """Of each SAE, the mean over its draws."""
    found = dict[str, list[Replicates]]()
    for key in own[0].difference:
        for draws in _by_sae(own).values():
            known = [one.difference[key] for one in draws if key in one.difference]
            found.setdefault(key, []).append(Replicates(np.mean([one.rows for one in known], axis=0), known[0].weights))
    return found


def _ranges(own: Sequence[Row]) -> dict[str, float]:
    """Over SAEs and draws."""
    values = {key: [float(one.difference[key].rows[0]) for one in own if key in one.difference] for key in own[0].difference}
    return {f"{key}_difference_{name}": end(each) for key, each in values.items()
            for name, end in (("smallest", min), ("largest", max))}
