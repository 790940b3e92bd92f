"""summary.csv: a row per SAE or control and score, with its interval, its control and the shares of its latents."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from saesweep.storage import study_tables
from saesweep.study.comparison.contrasts import contrast
from saesweep.study.comparison.measured import Study
from saesweep.study.comparison.missing import missing


def summary(study: Study, shares: pd.DataFrame) -> pd.DataFrame:
    """The content of summary.csv. shares: a row per SAE or control, with path, control and study_tables.SHARES."""
    by_sae = dict(zip(study_tables.sae_keys(shares), shares.to_dict("records"), strict=True))
    names = dict.fromkeys(name for name, _ in study.numbers)
    rows = [_row(study, i, name, by_sae) for i in range(len(study.saes)) for name in names]
    return pd.DataFrame([row for row in rows if row], columns=pd.Index(study_tables.SUMMARY_COLUMNS))


def _row(study: Study, i: int, name: str, shares: Mapping[Any, Mapping[Any, Any]]) -> dict[str, Any]:
    """Empty where the SAE does not have the score."""
    numbers = study.numbers[name, "uniform"]
    if (uniform := numbers[i]) is None:
        return {}
    about = study.saes.loc[i]
    ends = contrast([{i: 1.0}], numbers).as_dict()
    own = shares.get((about["path"], about["control"] or ""), {})
    return {
        **{key: about.get(key) for key in [*study_tables.SAE, "control"]}, "score": name,
        **{mean: _value(study, i, name, mean) for mean in study_tables.MEANS},
        "low": ends["low"], "high": ends["high"], **_over_control(study, i, name),
        **{key: own.get(key) for key in study_tables.SHARES}, **(missing(study.features[i], name) if uniform.features else {}),
    }


def _value(study: Study, i: int, name: str, mean: str) -> float:
    """NaN where it is not known."""
    number = study.numbers.get((name, mean), [None] * (i + 1))[i]
    return math.nan if number is None else number.value


def _over_control(study: Study, i: int, name: str) -> dict[str, Any]:
    """study_tables.OVER: of the first of BASELINES that has the score; empty without one."""
    numbers, beside = study.numbers[name, "uniform"], study.beside[i]
    rows = [beside[control] for control in study_tables.BASELINES if control in beside]
    known = [k for k in rows if numbers[k] is not None]
    if not known:
        return {}
    found = contrast([{i: 1.0, known[0]: -1.0}], numbers).as_dict()
    values = _value(study, known[0], name, "uniform"), found["estimate"], found["low"], found["high"]
    return dict(zip(study_tables.OVER, values, strict=True))


def with_controls(scores: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """scores.csv with the mean of the control and the difference to it beside each main score of the trained SAEs' features."""
    known = summary.loc[summary["control"].isna()].set_index(["score", "path"])["baseline"].astype(float)
    columns = {}
    for name in (name for name in study_tables.MAIN if name in scores and name in known.index):
        control = scores["path"].map(known[name]).where(scores["control"].isna())
        columns |= dict(zip([name + end for end in study_tables.BESIDE], [control, scores[name] - control], strict=True))
    return scores.assign(**columns)
