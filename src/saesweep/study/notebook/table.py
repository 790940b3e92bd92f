"""The main scores of finished studies as a DataFrame."""
from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from saesweep.errors import UsageError
from saesweep.storage import study_tables, sweep_table
from saesweep.storage.curves import VARIANT
from saesweep.study import written

MEASURES = ["l0", "fvu", "delta_loss"]  # of pareto.csv, beside the names


def study(*sweeps: str | Path) -> pd.DataFrame:
    """As `saesweep.study(...)` is documented (study/__init__.py)."""
    if not sweeps:
        raise UsageError("saesweep.study() needs the folder of a sweep, such as outputs/default")
    there = list(dict.fromkeys(one for folder in map(Path, sweeps) for one in _sweeps_of(folder)))
    base = Path(".").resolve()
    known = [VARIANT, *sweep_table.COLUMNS]
    table = sweep_table.table(*there, base=base)
    table = table.loc[:, [key for key in table.columns if key in known]]
    folders = dict.fromkeys(folder for sweep in there for folder in written.folders_of_tables(sweep))
    df = sweep_table.with_scores(table, folders, base)
    found = [key for key in df.columns if key not in known]
    if not found:
        where = " and ".join(map(str, sweeps))
        raise UsageError(f"{where}: no SAE was studied; run {written.command(*(one.resolve() for one in there))}")
    names = [key for key in df.columns if key in (*sweep_table.NAMES, VARIANT)]
    return df.rename(columns={"path": "folder"}).loc[:, [*names, *MEASURES, *found, "folder"]]


def _sweeps_of(folder: Path) -> list[Path]:
    """The sweep itself; of the study of several sweeps together, these."""
    file = folder / study_tables.FOLDER / study_tables.SUMMARY
    if not file.is_file() or sweep_table.jobs(folder):
        return [folder]
    paths = dict.fromkeys(study_tables.read(file)["path"])
    return list(dict.fromkeys(Path(os.path.normpath(folder.resolve() / path)).parents[3] for path in paths))
