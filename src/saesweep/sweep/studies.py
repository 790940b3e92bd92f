"""`study=rules`: a training ends with the study of its sweep, as `saesweep study` makes it of a finished one."""
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from saesweep.data.resources import Resources
from saesweep.errors import UsageError, reason
from saesweep.runtime import program
from saesweep.sweep.jobs import Job, shown

OF_THE_TRAINING = ("plan", "overwrite", "out")
log = logging.getLogger(__name__)


def name_of(settings: Mapping[str, Any] | DictConfig) -> str:
    """The value of `study`; none in a config that is older than this key."""
    return (settings.get("study") or {"name": "none"})["name"]


def planned(jobs: Sequence[Job], new: Collection[Job], resources: Resources) -> list[str]:
    """The plan of the study of each sweep; new: the jobs that are trained first.

    Raises UsageError for whatever would end the study; no weight is loaded.
    """
    lines = []
    for sweep, settings in _asked(jobs):
        from saesweep.study import plan  # torch

        first = {job.folder.resolve(): job.settings for job in new if job.sweep == sweep}
        head = f"{'then ' if first else ''}the study of {shown(sweep)}"
        with _keys_of_training(settings):
            lines.append(f"{head}\n{plan.plan_ahead(sweep.resolve(), first, settings, resources)}")
    return lines


def run(jobs: Sequence[Job], resources: Resources) -> list[str]:
    """Make the study of each sweep, and print what it finds; returns what failed. The SAEs stay as they are."""
    problems = []
    for sweep, settings in _asked(jobs):
        from saesweep.study import run  # torch

        name = shown(sweep)
        print(f"\nstudy of {name}", flush=True)
        try:
            with _keys_of_training(settings):
                result = run.run([Path(name)], settings, resources)
        except Exception as error:
            if not isinstance(error, UsageError):
                log.exception("the study of %s failed", name)
            problems.append(f"the study of {name} failed: {reason(error)}\nthe SAEs are finished; the same command, or "
                            f"{program.called('study')} {name}, tries again")
        else:
            print(*result.lines, sep="\n", flush=True)
            problems += [result.problem] if result.problem else []
    return problems


def _asked(jobs: Sequence[Job]) -> list[tuple[Path, dict[str, Any]]]:
    """The sweeps that are studied, with the settings. Raises UsageError where jobs of one sweep ask for different ones."""
    found: dict[Path, dict[str, Any]] = {}
    for job in jobs:
        if name_of(job.settings) == "none":
            continue
        from saesweep.study.settings import of_training  # pandas

        settings = of_training(job.settings)
        if found.setdefault(job.sweep, settings) != settings:
            raise UsageError(f"study={settings['name']}: the SAEs of {shown(job.sweep)} have one study; its settings and those "
                             "of the explainer must be the same for all")
    return list(found.items())


@contextmanager
def _keys_of_training(settings: Mapping[str, Any]) -> Iterator[None]:
    """The study's messages name its keys as they are typed here: tokens=5 as study.tokens=5."""
    keys = "|".join(key for key in settings if key not in ("name", "explainer", *OF_THE_TRAINING))
    try:
        yield
    except UsageError as error:
        raise UsageError(re.sub(rf"(?<![\w.])({keys})(?==|: .* there, )", r"study.\1", str(error))) from error
