"""The first stage of a study: collect the activations of the SAEs of sweeps, and read them back."""
from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from saesweep.config.settings import device_of
from saesweep.config.study_schema import CONTROLS
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.runtime import distributed
from saesweep.study import arrays, hits_file, passes, record, subjects, text, written
from saesweep.study.collector import Collector
from saesweep.study.hits import Collected
from saesweep.study.passes import Pass
from saesweep.study.subjects import FOLDER, HITS, Subject

log = logging.getLogger(__name__)


def needed(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources) -> list[Pass]:
    """The passes that are left. Raises UsageError for whatever cannot work; no weight is loaded."""
    return passes.passes(subjects.of_sweeps(sweeps, settings), settings, resources)


def collect(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources | None = None) -> dict[str, Exception]:
    """Collect what is not collected yet. Returns what failed, by SAE. Raises UsageError before a weight is loaded.

    Ranks that torch.distributed has started, and that see the same folders, share the work.
    """
    resources = resources or Resources()
    made = needed(sweeps, settings, resources)
    distributed.all_gather(None)  # all have looked before one writes
    if distributed.rank() == 0:
        for one in made:
            passes.clear(one.replaced)
            _write_text(one)
        for sweep in {subject.sweep for one in made for subject in one.replaced}:
            _drop_texts(sweep, {one.name for one in made})
        for sweep in sweeps:
            written.write_settings(sweep, settings)
    distributed.all_gather(None)
    failed = dict[str, Exception]()
    for one in made:
        failed |= Collector(one.subjects, one.source, one.text, one.name, settings).run(device_of(one.job))
    return failed


def _write_text(one: Pass) -> None:
    for sweep in dict.fromkeys(subject.sweep for subject in one.subjects):
        arrays.write(text.file_of(sweep, one.name), text.content(one.text), {})


def _drop_texts(sweep: Path, needed: set[str]) -> None:
    """Remove the texts of what was replaced."""
    read = {arrays.metadata(file)["text"] for file in sweep.rglob(f"{FOLDER}/**/{HITS}")} | needed
    for file in (sweep / FOLDER).glob("text-*.safetensors"):
        if file not in {text.file_of(sweep, name) for name in read}:
            file.unlink()


def collected(sweep: Path) -> list[Collected]:
    """The SAEs of a sweep that are collected, and their controls; arrays are read from disk as they are used.

    Raises UsageError where none is, where a file is damaged, or where an SAE was trained again since.
    """
    sweep = sweep.resolve()
    if not (settings := written.settings_of(sweep)):
        raise UsageError(f"{sweep}: its SAEs are not collected yet; run saesweep study {sweep}")
    found = subjects.of_sweep(sweep, settings.get("controls", CONTROLS), settings["seed"])
    heads = [(one, arrays.metadata(one.file) if one.file.is_file() else None) for one in found]
    pairs = [(one, head) for one, head in heads if head is not None]
    for one in (one for one in found if one.file not in {there.file for there, _ in pairs}):
        log.warning("%s is not collected: the same command does it", one.label)
    return _read(sweep, pairs, settings)


def collected_sae(job: Path) -> Collected:
    """One SAE by its folder, as `collected` reads it back, without a look at the others."""
    job, sweep = job.resolve(), subjects.sweep_of(job.resolve())
    settings, file = written.settings_of(sweep), job / FOLDER / HITS
    if not settings or not file.is_file():
        raise UsageError(f"{job}: this SAE was not studied; run {written.command(sweep)}")
    return _read(sweep, [(subjects.of_folder(job), arrays.metadata(file))], settings)[0]


def _read(sweep: Path, pairs: Sequence[tuple[Subject, dict[str, str]]], settings: Mapping[str, Any]) -> list[Collected]:
    """pairs: with the metadata of their files."""
    record.refuse({one.label: lines for one, head in pairs if (lines := record.differences(head, one, settings, None))})
    read = cache(lambda name: text.read(text.file_of(sweep, name)))
    return [_collected(one, read(head["text"]), head) for one, head in pairs]


def _collected(one: Subject, halves: text.Text, head: Mapping[str, str]) -> Collected:
    """head: the metadata of its file."""
    found, seed = hits_file.read(one.file, halves), json.loads(head["settings"])["seed"]
    return Collected(one.path, one.job, one.config, one.metrics, one.control, found["fit"], found["test"], seed, one.number,
                     one.file, head["text"], one.variant)
