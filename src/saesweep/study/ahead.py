"""The study that a training ends with, before the training: what it would cost, and whatever is wrong with it already."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.config.settings import Settings, target
from saesweep.data.resources import Resources
from saesweep.lm.hooks import hook_point
from saesweep.study import passes, subjects
from saesweep.study.activations import activations_of
from saesweep.study.judge.settings import has_model
from saesweep.study.judging import planned
from saesweep.study.plan import plan, reading


def plan_ahead(sweep: Path, new: Mapping[Path, Settings], settings: Mapping[str, Any], resources: Resources) -> str:
    """The plan as text. new: the settings of the SAEs that are trained before, by folder.

    Raises UsageError as the study would; no weight is loaded. Text and weights are those of the training, which compares them
    itself.
    """
    if not new:
        return plan([sweep], settings, resources)
    there = [one for one in subjects.finished(sweep, settings["controls"], settings["seed"]) if one.job not in new]
    replaced = passes.changed(there, settings, None)
    left = [one.config for one in there if one.control is None and (one.file in replaced or not one.file.is_file())]
    saes = [*(one.config for one in there if one.control is None), *new.values()]
    judging = planned(len(saes) + controls(saes, settings["controls"]), settings)
    alike = subjects.groups([*left, *new.values()], lambda config: config)
    parts = ["\n".join(_read(group, settings, resources)) for group in alike]
    return "\n\n".join([*parts, *(judging.lines() if has_model(settings["explainer"]) else [])])


def _read(group: Sequence[Settings], settings: Mapping[str, Any], resources: Resources) -> list[str]:
    """One pass, whose text is long enough."""
    job = passes.on_device(group[0], settings["device"])
    points = list(dict.fromkeys(hook_point(one["model"], one["site"]["name"], one["layer"]) for one in group))
    text = activations_of(job, points, settings, resources).text()
    return reading(job, len(group), controls(group, settings["controls"]), len(points), text, settings)


def controls(saes: Sequence[Settings], names: Sequence[str]) -> int:
    """How many controls the SAEs have: of each kind one for each hook point and target L0; `random` also for each width."""
    places = {(one["model"]["name"], one["site"]["name"], one["layer"], target(one) or one["arch"]["coefficient"], one["width"])
              for one in saes}
    return sum(len({place if name == "random" else place[:-1] for place in places}) for name in names)
