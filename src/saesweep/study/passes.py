"""Which passes over the language model a command needs: one for each model, text and context whose SAEs are not collected yet.

Everything that a user can get wrong is found here, before a weight is loaded.
"""
from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saesweep.config.settings import Settings, has_lm
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.study import arrays, record, text
from saesweep.study.activations import Activations, activations_of
from saesweep.study.parts import saved, state_folder
from saesweep.study.subjects import Subject, groups
from saesweep.study.text import Text
from saesweep.training import origin


class Pass(NamedTuple):
    subjects: list[Subject]  # those that are left to collect
    job: Settings  # of one of their SAEs, on the device of the study
    source: Activations
    text: Text
    name: str  # the digest of the text
    replaced: list[Subject]  # those of them whose files go: with overwrite=true


def passes(found: Sequence[Subject], settings: Mapping[str, Any], resources: Resources) -> list[Pass]:
    """Raises UsageError where something was collected with other settings, and where text or weights have changed since."""
    there = changed(found, settings, None)
    return [made for group in groups(found, lambda one: one.config) if (made := _pass(group, there, settings, resources))]


def _pass(
    group: Sequence[Subject], there: Mapping[Path, Any], settings: Mapping[str, Any], resources: Resources
) -> Pass | None:
    if all(one.file.is_file() and one.file not in there for one in group):
        return None
    job = on_device(group[0].config, settings["device"])
    if has_lm(job):
        require_same(job, group, resources)
    source = activations_of(job, [one.point for one in group], settings, resources)
    read = source.text()
    name = text.digest(text.content(read))
    otherwise = {**there, **changed([one for one in group if one.file not in there], settings, name)}
    left = [one for one in group if one.file in otherwise or not one.file.is_file()]
    return Pass(left, job, source, read, name, [one for one in left if one.file in otherwise])


def changed(found: Sequence[Subject], settings: Mapping[str, Any], name: str | None) -> dict[Path, list[str]]:
    """The subjects collected otherwise, by their files, with the differences; refused without overwrite=true.

    name: the digest of the text; None where it is not known.
    """
    changed = dict[Path, list[str]]()
    for one in found:
        whole = one.file.is_file()
        files = [one.file] if whole else [part.file for part in saved(state_folder(one))]
        heads = [arrays.metadata(file) for file in files]
        found_lines = [record.differences(head, one, settings, name, not whole) for head in heads]
        if lines := list(dict.fromkeys(line for lines in found_lines for line in lines)):
            changed[one.file] = lines
    if not settings["overwrite"]:
        record.refuse({one.label: lines for one in found if (lines := changed.get(one.file))})
    return changed


def require_same(job: Settings, group: Sequence[Subject], resources: Resources) -> None:
    """Raises UsageError where the text or the language model's weights have changed since an SAE was trained."""
    jobs = list(dict.fromkeys(one.job for one in group))
    if changed := origin.changed_content(job, jobs, resources):
        raise UsageError("\n".join([*changed.values(), "a study of these SAEs needs what they were trained on: restore it, or "
                                                       "train them again with overwrite=true"]))


def on_device(config: Settings, device: str) -> Settings:
    """The settings of a job on the device of the study. Raises UsageError for a GPU that is not there."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UsageError(f"device=cuda: torch {torch.__version__} finds no CUDA GPU here; write device=cpu")
    accelerator = "gpu" if device == "cuda" or (device == "auto" and there) else "cpu"
    return {**config, "trainer": {**config["trainer"], "accelerator": accelerator}}


def clear(replaced: Sequence[Subject]) -> None:
    """Remove what was collected of these subjects."""
    for one in replaced:
        one.file.unlink(missing_ok=True)
        shutil.rmtree(state_folder(one), ignore_errors=True)
