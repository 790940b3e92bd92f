"""Of which features a score was asked, and why some of them have none.

    of a judge     asked of the first features in the sampling order; `<task>_failed` is the share of a feature's questions
                   without a readable answer, and `explanation_failed` is 1 of one that could not be explained
    of people      asked of the features that were rated, which are the first ones too
    by embeddings  asked of the first features too
    all others     asked of every sampled feature

A score that is missing is no 0. It `failed` where a model did not answer as asked, and is insufficient elsewhere: the
feature has too few activations or windows.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from saesweep.storage.study_tables import FAILED
from saesweep.study.comparison.catalogue import YES, task_of

EMBEDDED = ("context", "intruder")
EXPLANATION, UNEXPLAINED = f"explanation{FAILED}", ("intruder_lm",)


def asked(features: pd.DataFrame, name: str) -> Bool[np.ndarray, " features"]:
    """features: rows of scores.csv."""
    known = features[name].notna().to_numpy()
    if name in (YES, *EMBEDDED) or name.endswith(("_shuffled", "_none")):
        return known
    if task_of(name) and EXPLANATION in features:
        return known | features[EXPLANATION].notna().to_numpy()
    return np.ones(len(features), bool)


def missing(features: pd.DataFrame, name: str) -> dict[str, Any]:
    """`insufficient`: share of the features asked; `failed`: number of them; `failed_answers`: share of their questions."""
    mine = asked(features, name)
    none, answers = features[name].isna().to_numpy() & mine, _failed_answers(features, name)
    failed = none & ((answers > 0) | _unexplained(features, name))
    questions = answers[mine & np.isfinite(answers)]
    return {"insufficient": float((none & ~failed).sum() / mine.sum()) if mine.any() else None, "failed": int(failed.sum()),
            "failed_answers": float(questions.mean()) if len(questions) else None}


def _failed_answers(features: pd.DataFrame, name: str) -> np.ndarray:
    """NaN where no question was asked."""
    column = f"{task_of(name)}{FAILED}"
    return features[column].to_numpy(float) if column in features else np.full(len(features), np.nan)


def _unexplained(features: pd.DataFrame, name: str) -> np.ndarray:
    if task_of(name) in (None, *UNEXPLAINED) or EXPLANATION not in features:
        return np.zeros(len(features), bool)
    return features[EXPLANATION].to_numpy(float) == 1
