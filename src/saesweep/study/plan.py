"""The plan of a study as text: what would be read, kept and needed, now or after a training. No weight is loaded."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.config.settings import Settings, has_lm, target
from saesweep.config.settings import passes as training_passes
from saesweep.data.resources import Resources
from saesweep.lm.hooks import hook_point
from saesweep.storage import files
from saesweep.study import passes, subjects
from saesweep.study.accumulator import BYTES
from saesweep.study.activations import activations_of
from saesweep.study.collect import needed
from saesweep.study.collector import ELEMENTS, LISTED
from saesweep.study.hits import HALVES
from saesweep.study.judge.settings import has_model
from saesweep.study.judging import planned
from saesweep.study.text import Text

GB = 1e9


def plan(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources | None = None) -> str:
    """Raises UsageError as the study itself does."""
    made = needed(sweeps, settings, resources or Resources())
    collecting = "\n\n".join(_describe(one, settings) for one in made) or "all SAEs and controls are collected"
    if not has_model(settings["explainer"]):
        return collecting
    return "\n\n".join([collecting, *planned(len(subjects.of_sweeps(sweeps, settings)), settings).lines()])


def plan_ahead(sweep: Path, new: Mapping[Path, Settings], settings: Mapping[str, Any], resources: Resources) -> str:
    """The plan of the study that a training ends with. new: the settings of the SAEs that are trained before, by folder.

    Raises UsageError as the study would. Text and weights are those of the training, which compares them itself.
    """
    if not new:
        return plan([sweep], settings, resources)
    there = [one for one in subjects.finished(sweep, settings["controls"], settings["seed"]) if one.job not in new]
    replaced = passes.changed(there, settings, None)
    left = [one.config for one in there if one.control is None and (one.file in replaced or not one.file.is_file())]
    saes = [*(one.config for one in there if one.control is None), *new.values()]
    judging = planned(len(saes) + controls(saes, settings["controls"]), settings)
    alike = subjects.groups([*left, *new.values()], lambda config: config)
    parts = [_read_ahead(group, settings, resources) for group in alike]
    return "\n\n".join([*parts, *(judging.lines() if has_model(settings["explainer"]) else [])])


def _read_ahead(group: Sequence[Settings], settings: Mapping[str, Any], resources: Resources) -> str:
    """One pass, whose text is long enough."""
    job = passes.on_device(group[0], settings["device"])
    points = list(dict.fromkeys(hook_point(one["model"], one["site"]["name"], one["layer"]) for one in group))
    text = activations_of(job, points, settings, resources).text()
    return "\n".join(_reading(job, len(group), controls(group, settings["controls"]), len(points), text, settings))


def controls(saes: Sequence[Settings], names: Sequence[str]) -> int:
    """How many controls these SAEs will have."""
    points = [(Path(one["model"]["name"], f"{one['site']['name']}.{one['layer']}"), one) for one in saes]
    places = [(place, target(one) or one["arch"]["coefficient"], one["width"])
              for place, (_, one) in zip(subjects.places_of_controls(points), points, strict=True)]
    return len({(name, subjects.folder_of_control(name, *place)) for name in names for place in places})


def _describe(one: passes.Pass, settings: Mapping[str, Any]) -> str:
    saes = [subject for subject in one.subjects if subject.control is None]
    lines = [
        *_reading(one.job, len(saes), len(one.subjects) - len(saes), len({subject.point for subject in one.subjects}),
                  one.text, settings),
        *_time(one),
        f"memory: about {_memory(one) / GB:.2f} GB beside the language model; disk: {_state(one) / GB:.2f} GB, and 12 bytes "
        "for each activation that is listed",
        *(f"  {subject.label}" + (" (replaced)" if subject in one.replaced else "") for subject in one.subjects),
    ]
    return "\n".join(lines)


def _reading(
    job: Settings, saes: int, controls: int, points: int, text: Text, settings: Mapping[str, Any]
) -> list[str]:
    """What one pass reads, and for whom."""
    halves = [f"{half}: {len(text[half].documents):,} documents, {int(text[half].ordinary.sum()):,} tokens" for half in HALVES]
    lines = [f"{job['model']['name']}: one pass for {saes} SAEs and {controls} controls at {points} hook points; "
             f"{settings['features']:,} latents of each are scored", *halves]
    if not has_lm(job):
        return lines
    again = sum(min(settings["dense_tokens"], len(text[half].tokens)) for half in HALVES) * settings["dense_probes"]
    total = sum(len(text[half].tokens) for half in HALVES) + again
    return [*lines, f"language model: {total:,} tokens" + (f", {again:,} of them a second time for probes" if again else "")]


def _state(one: passes.Pass) -> int:
    return sum(2 * BYTES * subject.d_sae for subject in one.subjects)


def _memory(one: passes.Pass) -> int:
    """What is kept of each latent, the weights, the lists and the dense latents of a piece."""
    weights = sum(8 * subject.d_sae * len(subject.statistics.mean) for subject in one.subjects)
    return _state(one) + weights + 16 * LISTED + 3 * 4 * ELEMENTS


def _time(one: passes.Pass) -> list[str]:
    """By the rate at which the training read the same text; it did more for each token."""
    rates = [(files.latest(subject.job).get("tokens_per_second"), subject.config) for subject in one.subjects]
    known = [rate / training_passes(config) for rate, config in rates if rate]
    if not known:
        return []
    tokens = sum(int(one.text[half].ordinary.sum()) for half in HALVES)
    return [f"time: about {tokens / max(known) / 60:.1f} min, at the {max(known):,.0f} tokens per second read in training"]
