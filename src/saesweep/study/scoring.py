"""The second stage of a study: the scores of what was collected that need no judge, and their comparison.

Each SAE and control is scored once, by one of the ranks (kept_scores.py). What is read from all scores together, the tables
and the comparison, is made anew by each command; its files are whole or as they were before (storage/study_tables.py).
"""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer
from saesweep.runtime import distributed
from saesweep.runtime.console import ProgressLine, TimeLeft
from saesweep.storage import study_tables
from saesweep.study.collect import collected
from saesweep.study.comparing import compare
from saesweep.study.comparison import replicates
from saesweep.study.hits import Collected
from saesweep.study.judging import with_judgements
from saesweep.study.kept_scores import KeptScores
from saesweep.study.score_group import Group
from saesweep.study.subjects import groups
from saesweep.study.table import Rows


class Scored(NamedTuple):
    """What a study has found, in the folder `base`, which paths are relative to."""

    base: Path
    saes: list[tuple[Collected, Tokenizer]]
    scores: pd.DataFrame
    summary: pd.DataFrame
    comparison: dict[str, Any]


def base_of(sweeps: Sequence[Path], out: str | None) -> Path:
    """The folder below which the study's tables go. Raises UsageError for several sweeps without `out`."""
    if out is None and len(sweeps) > 1:
        raise UsageError(f"{len(sweeps)} sweeps: name the folder of their study, such as out=outputs/both")
    return Path(out or sweeps[0]).resolve()


def run_scores(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources) -> Scored | None:
    """Score what is not scored yet; then compare, and write the tables. None on other ranks than the first."""
    base = base_of(sweeps, settings["out"])
    saes = [one for sweep in sweeps for one in collected(sweep)]
    based = [replace(one, path=Path(os.path.relpath(one.folder, base)).as_posix()) for one in saes]
    found, rows = list[tuple[Collected, Tokenizer]](), Rows()
    alike = [Group(group, settings, resources) for group in _groups(based)]
    _score([(kept, group) for group in alike for kept in group.kept if not kept.whole])
    if distributed.rank() != 0:
        return None
    for group in alike:
        for one in group.kept:
            rows.extend(one.rows())
            found.append((one.sae, group.tokenizer))
    return _compared(sweeps, settings, base, found, rows)


def _score(left: Sequence[tuple[KeptScores, Group]]) -> None:
    """This rank's share of what is left to score; all are done when it returns."""
    distributed.all_gather(None)  # all have looked before one writes
    mine, show, time_left = left[distributed.rank() :: distributed.world_size()], ProgressLine(every=2), TimeLeft()
    for done, (one, group) in enumerate(mine):
        show(f"scoring {one.label}, {done + 1} of {len(mine)} SAEs and controls{time_left(done, len(mine))}")
        group.score(one)
    distributed.all_gather(None)


def _compared(
    sweeps: Sequence[Path], settings: Mapping[str, Any], base: Path, found: list[tuple[Collected, Tokenizer]], rows: Rows
) -> Scored:
    scores, saes, labels, shares = rows.frames()
    scores = with_judgements(scores, found, settings, base)
    study_tables.write_labels(base / study_tables.FOLDER, labels)
    replicates.save(base / study_tables.FOLDER / study_tables.REPLICATES, rows.replicates)
    return Scored(base, found, *compare(sweeps, base, scores, saes, shares, rows.replicates, settings["delta"]))


def _groups(saes: Sequence[Collected]) -> list[list[Collected]]:
    """Those of one text and language model; in a group those of a hook point next to each other, the trained ones first."""
    ordered = sorted(saes, key=lambda sae: (sae.config["site"]["name"], sae.config["layer"], sae.control is not None))
    return groups(ordered, lambda sae: sae.config)
