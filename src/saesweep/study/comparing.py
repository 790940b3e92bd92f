"""The last tables of a study: what people say of its latents joined to the scores, the summary and the comparison.

It needs nothing but the tables of the scores, so it can be done again when ratings have come in.
"""
from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from saesweep.report import pareto
from saesweep.storage import study_tables, sweep_table
from saesweep.storage.curves import by_curve
from saesweep.study.comparison import catalogue, measured, replicates, report
from saesweep.study.comparison.replicates import Replicates
from saesweep.study.comparison.summary import summary, with_controls
from saesweep.study.pages import write_study_page
from saesweep.study.people.files import rated


class Compared(NamedTuple):
    """The content of scores.csv, summary.csv and study.json."""

    scores: pd.DataFrame
    summary: pd.DataFrame
    comparison: dict[str, Any]


def compare(
    sweeps: Sequence[Path], base: Path, scores: pd.DataFrame, saes: pd.DataFrame, shares: pd.DataFrame, known: Replicates,
    delta: float,
) -> Compared:
    """Compare and write the tables. base: the folder that holds study/, which paths are relative to.

    scores, saes, shares: as study/table.py gives them.
    """
    folder = base / study_tables.FOLDER
    scores = with_ratings(scores, rated(folder))
    study = measured.study(by_curve(sweep_table.table(*sweeps, base=base)), scores, saes, known)
    of_saes, comparison = summary(study, shares), report.report(study, delta=delta, primary=catalogue.PRIMARY)
    scores = with_controls(scores, of_saes)
    study_tables.write_scores(folder, scores)
    report.write(folder, comparison)
    study_tables.write_summary(folder, of_saes)
    return Compared(scores, of_saes, comparison)


def with_ratings(scores: pd.DataFrame, yes: Mapping[tuple[str, str, int], float]) -> pd.DataFrame:
    """scores.csv with the share of yes of the latents that were rated; without the score where nothing was."""
    if not yes:
        return scores.drop(columns=catalogue.YES, errors="ignore")
    return study_tables.with_score(scores, catalogue.YES, yes)


def again(sweep: Path) -> Compared | None:
    """Compare anew from the tables of a sweep's study, and write them, its page and its columns in pareto.csv.

    None where the sweep has no scores in a study of its own. The pages of the latents stay as they are.
    """
    folder = sweep / study_tables.FOLDER
    if not all((folder / name).is_file() for name in (study_tables.SCORES, study_tables.SUMMARY, study_tables.COMPARISON)):
        return None
    scores, of_saes = (study_tables.read(folder / name) for name in (study_tables.SCORES, study_tables.SUMMARY))
    shares = of_saes.drop_duplicates(["path", "control"])
    whole = of_saes.loc[~of_saes["score"].isin(study_tables.score_names(scores))]
    delta = json.loads((folder / study_tables.COMPARISON).read_text())["delta"]
    known = replicates.load(folder / study_tables.REPLICATES)
    found = compare([sweep], sweep.resolve(), scores, whole, shares, known, delta)
    write_study_page(folder, found.comparison, found.summary, found.scores.loc[found.scores["control"].isna()],
                     command=shlex.join(["saesweep", "study", str(sweep)]))
    if (sweep / "pareto.csv").is_file():
        pareto.write(pareto.report([sweep], sweep), sweep)
    return found
