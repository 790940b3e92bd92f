"""The main scores of a finished study as a DataFrame."""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from saesweep.errors import UsageError
from saesweep.runtime import program
from saesweep.storage import study_tables, sweep_table


def study(*sweeps: str | Path) -> pd.DataFrame:
    """One row per SAE of one or more sweeps: names, L0, FVU, the scores of study_tables.main_scores; `folder` is what
    `load` takes.

    Raises UsageError where a folder is no sweep, or none of them has a study.
    """
    df = sweep_table.table(*map(Path, sweeps), base=Path("."))
    found = [key for key in df.columns if key not in sweep_table.COLUMNS]
    if not found:
        where = " ".join(map(str, sweeps))
        raise UsageError(f"{where} has no {study_tables.FOLDER}/{study_tables.SUMMARY}: run {program.called('study')} {where}")
    shown = df.rename(columns={"path": "folder"})
    return shown.loc[:, [*sweep_table.NAMES, "l0", "fvu", "delta_loss", *found, "folder"]]
