"""summary.csv: a row per SAE or control and score, with its interval, its baseline and the shares of its latents."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from saesweep.storage import study_tables
from saesweep.storage.sweep_table import PLACE
from saesweep.study.comparison.contrasts import contrast
from saesweep.study.comparison.measured import Study


def summary(study: Study, shares: pd.DataFrame) -> pd.DataFrame:
    """The content of summary.csv.

    shares: a row per SAE or control, with path, control and the shares of all latents study_tables.SHARES, and of the
    sampled features `insufficient` and `failed` by score, as far as known: columns `insufficient_<score>`, else
    `insufficient`.
    """
    keys = zip(shares["path"], shares["control"].astype(object).fillna(""), strict=True)
    by_sae = dict(zip(keys, shares.to_dict("records"), strict=True))
    names = dict.fromkeys(name for name, _ in study.numbers)
    rows = [_row(study, i, name, by_sae) for i in range(len(study.saes)) for name in names]
    found = pd.DataFrame([row for row in rows if row], columns=pd.Index(study_tables.SUMMARY_COLUMNS))
    return found


def _row(study: Study, i: int, name: str, shares: Mapping[Any, Mapping[Any, Any]]) -> dict[str, Any]:
    """Empty where the SAE does not have the score."""
    numbers = study.numbers[name, "uniform"]
    if (uniform := numbers[i]) is None:
        return {}
    about = study.saes.loc[i]
    means = {mean: _value(study, i, name, mean) for mean in study_tables.MEANS}
    ends = contrast([{i: 1.0}], numbers).as_dict()
    own = shares.get((about["path"], about["control"] or ""), {})
    left_out = {key: own.get(f"{key}_{name}", own.get(key)) for key in ("insufficient", "failed")} if uniform.features else {}
    return {
        **{key: about[key] for key in [*study_tables.SAE, "control"]}, "score": name, **means,
        "low": ends["low"], "high": ends["high"], "baseline": _baseline(study, i, name),
        **{key: own.get(key) for key in study_tables.SHARES}, **left_out,
    }


def _value(study: Study, i: int, name: str, mean: str) -> float:
    """NaN where it is not known."""
    number = study.numbers.get((name, mean), [None] * (i + 1))[i]
    return math.nan if number is None else number.value


def _baseline(study: Study, i: int, name: str) -> float:
    """The uniform mean of the first of study_tables.BASELINES that was measured for this SAE, else of one at the same hook
    point for the same target L0: these share a control, which is listed with the first of them. NaN of a control."""
    if study.saes.at[i, "control"] is not None:
        return math.nan
    own = study.saes["path"] == study.saes.at[i, "path"]
    alike = (study.saes[[*PLACE, "sparsity"]] == study.saes.loc[i, [*PLACE, "sparsity"]]).all(axis=1)
    for same in (own, alike):
        found = {study.saes.at[k, "control"]: _value(study, k, name, "uniform") for k in study.saes.index[same].tolist()}
        known = [found[key] for key in study_tables.BASELINES if not math.isnan(found.get(key, math.nan))]
        if known:
            return known[0]
    return math.nan
