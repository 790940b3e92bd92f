"""Made-up tables of a study: features with planted means, nothing is trained."""
from __future__ import annotations

import numpy as np
import pandas as pd

from saesweep.storage import sweep_table
from saesweep.storage.files import job_name
from saesweep.study.comparison.measured import Study, study
from saesweep.study.comparison.replicates import Replicates

NO_ROWS = pd.DataFrame({"path": [], "control": [], "score": [], "uniform": [], "eligible": []}).astype({"control": object})


def sae(arch="topk", l0=32.0, sparsity=None, seed=0, fvu=0.1, control=None, sweep=".", **scores):
    """One SAE. Each score is a list, one value per feature (of equal weight), or a number of the whole SAE; `weight`,
    `frequency` and `shares` (dead, rare, eligible) may be given too."""
    target = round(l0) if sparsity is None else sparsity
    path = f"{'' if sweep == '.' else f'{sweep}/'}lm/resid.9/{arch}/{job_name(target, None, seed)}"
    return {"arch": arch, "l0": l0, "sparsity": target, "seed": seed, "fvu": fvu, "control": control, "path": path, **scores}


def table(saes) -> pd.DataFrame:
    trained = [one for one in saes if one["control"] is None]
    rows = [dict.fromkeys(sweep_table.COLUMNS) | {"model": "lm", "site": "resid", "layer": 9, "state": "finished"}
            | {key: one[key] for key in ("arch", "l0", "sparsity", "seed", "fvu", "path")} for one in trained]
    return pd.DataFrame(rows, columns=sweep_table.COLUMNS)


def scores(saes) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(_features(one)) for one in saes], ignore_index=True).astype({"control": object})


def _features(one) -> dict:
    lists = {key: value for key, value in one.items() if isinstance(value, list | np.ndarray)}
    n = len(next(iter(lists.values()), []))
    names = {key: [one[key]] * n for key in ("path", "arch", "sparsity", "seed", "control")}
    same = {"stratum": 1, "weight": 1.0, "frequency": 0.01, "fires": 100, "documents": 20, "eligible": True, "reason": None}
    return {**names, "latent": range(n), **same, **lists}


def summary(saes) -> pd.DataFrame:
    rows = []
    known = {"arch", "l0", "sparsity", "seed", "fvu", "control", "path"}
    for one in saes:
        same = {key: one[key] for key in ("path", "arch", "sparsity", "seed", "control")} | one.get("shares", {})
        rows += [{**same, "score": key, "uniform": value} for key, value in one.items()
                 if key not in known and isinstance(value, int | float)]
        rows += [{**same, "score": "rule"}] * ("shares" in one)
    found = pd.DataFrame(rows) if rows else NO_ROWS
    return found.reindex(columns=[*NO_ROWS.columns, *found.columns.difference(NO_ROWS.columns)]).astype({"control": object})


def made(*saes, replicates=None) -> Study:
    return study(table(saes), scores(saes), summary(saes), replicates or Replicates())


def around(mean, count=300, sd=0.25, seed=0):
    """Feature scores with exactly this mean."""
    drawn = np.random.default_rng(seed).normal(0, sd, count)
    return mean + drawn - drawn.mean()
