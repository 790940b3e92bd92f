"""What `saesweep ablate` does: the SAEs one after the other, on activations that are read once for each hook point."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from saesweep.config.settings import Settings, device_of, has_lm
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.runtime import atomic
from saesweep.runtime.console import ProgressLine, TimeLeft
from saesweep.storage import files, sweep_table
from saesweep.study import passes, subjects
from saesweep.study.ablation import results, summary
from saesweep.study.ablation.measure import Measured, measure
from saesweep.study.ablation.rows import read
from saesweep.study.ablation.settings import evaluated
from saesweep.study.subjects import Subject
from saesweep.training.loaded import load

TABLE, SUMMARY = "ablation.csv", "ablation_summary.csv"


class Result(NamedTuple):
    rows: pd.DataFrame  # a row per SAE and ablation
    summary: pd.DataFrame  # a row per group of seeds
    files: list[Path]


def run(folders: Sequence[Path], settings: Mapping[str, Any], out: Path | None, resources: Resources | None = None) -> Result:
    """Ablate the latents of the SAEs in some folders, of sweeps or of single SAEs. Raises UsageError.

    out: where the tables are written, after each SAE; None: into the folder of the one sweep.
    """
    found, resources = _subjects(folders), resources or Resources()
    written = [(out or _one_sweep(found)) / name for name in (TABLE, SUMMARY)]
    names, rows, made = sweep_table.sweep_names([one.sweep for one in found]), list[results.Row](), None
    for subject, measured in _measured(found, settings, resources):
        rows += results.rows(subject, measured, names[subject.sweep])
        made = _write(rows, written)
    assert made is not None, "there is an SAE"
    return made


def _measured(
    found: Sequence[Subject], settings: Mapping[str, Any], resources: Resources
) -> Iterator[tuple[Subject, Measured]]:
    """Everything that a user can get wrong about text and models is found before the first is measured."""
    jobs = [(_job(group, settings, resources), group) for group in subjects.groups(found, lambda one: one.config)]
    show, left, number = ProgressLine(), TimeLeft(), 0
    for job, group in jobs:
        for own in _by_point(group):
            activations = read(job, own[0].point, resources)
            for subject in own:
                def progress(share: float, name: str = subject.path, done: int = number) -> None:
                    show(f"{name}: SAE {done + 1} of {len(found)}, {share:.0%} of its passes{left(done + share, len(found))}")

                sae = load(subject.job, str(device_of(job)))
                yield subject, measure(sae, activations, settings, subject.number, progress)
                number += 1
    show(f"{number} of {len(found)} SAEs ablated", final=True)


def _subjects(folders: Sequence[Path]) -> list[Subject]:
    """Each SAE once."""
    found = dict[Path, Subject]()
    for folder in map(Path.resolve, folders):
        of_job = (folder / files.NUMBERS).is_file()
        mine = [subjects.of_folder(folder)] if of_job else subjects.of_sweep(folder, [], 0)
        found |= {one.job: one for one in mine}
    return list(found.values())


def _one_sweep(found: Sequence[Subject]) -> Path:
    sweeps = dict.fromkeys(one.sweep for one in found)
    if len(sweeps) > 1:
        raise UsageError(f"out: {len(sweeps)} sweeps need a folder for their tables; write --out outputs/both")
    return next(iter(sweeps))


def _job(group: Sequence[Subject], settings: Mapping[str, Any], resources: Resources) -> Settings:
    """The settings of SAEs that share a text and a model. Raises UsageError where either has changed since."""
    job = evaluated(passes.on_device(group[0].config, settings["device"]), settings["evaluation"])
    if has_lm(job):
        passes.require_same(job, group, resources)
    return job


def _by_point(group: Sequence[Subject]) -> Iterator[list[Subject]]:
    for point in dict.fromkeys(one.point for one in group):
        yield [one for one in group if one.point == point]


def _write(rows: Sequence[results.Row], written: list[Path]) -> Result:
    made = Result(results.table(rows), summary.summary(rows), written)
    for file, table in zip(written, made[:2], strict=True):
        atomic.write(file, table.to_csv(index=False))
    return made
