"""From Hydra's overrides to jobs (one SAE each), and from jobs to groups (one activation stream each)."""
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from saesweep.config.check import check
from saesweep.config.schema import MAY_DIFFER_IN_A_GROUP
from saesweep.errors import UsageError, as_typed
from saesweep.old_names import renewed
from saesweep.storage import checkpoints, files
from saesweep.sweep.composed import remember

ONE_CHOICE = ("model", "site", "text", "cache", "arch", "trainer", "study", "explainer")


@dataclass(frozen=True)
class Job:
    composed: DictConfig  # with Hydra's own node
    folder: Path
    sweep: Path  # the folder of the sweep, with its pareto.csv

    @cached_property
    def settings(self) -> dict:
        """The config without Hydra's node, resolved."""
        with resolving(), current(self.composed):
            return files.at_home(renewed({str(key): _plain(self.composed[key]) for key in self.composed if key != "hydra"}))


@contextmanager
def current(composed: DictConfig) -> Iterator[None]:
    """`${hydra:...}` resolves to this job within the block."""
    hydra: Any = HydraConfig.instance()
    before, hydra.cfg = hydra.cfg, composed  # its set_config would copy Hydra's node
    try:
        yield
    finally:
        hydra.cfg = before


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node


@contextmanager
def resolving(key: str | None = None) -> Iterator[None]:
    """An interpolation that fails becomes a UsageError. key: the key of the value, if the error may not name it."""
    try:
        yield
    except OmegaConfBaseException as error:
        full_key, text = key or error.full_key or "config", str(error.msg or error).splitlines()[0]
        if found := re.search(r"Interpolation key '(.*)' not found", text):
            raise UsageError(f"{found[1]}: is missing; {full_key} refers to it") from error
        if found := re.search(r"Environment variable '(.*)' not found", text):
            raise UsageError(f"{full_key}: refers to the environment variable {found[1]}, which is not set") from error
        if isinstance(error, InterpolationResolutionError) and "Recursive" in text:
            raise UsageError(f"{full_key}: refers to itself; write a value") from error
        raise UsageError(f"{full_key}: {text}") from error


def _resolve_each(composed: DictConfig) -> None:
    """Name the value that cannot be resolved, not another one that refers to it."""
    nodes: Any = OmegaConf.to_container(composed)
    for key, value in files.flat({key: node for key, node in nodes.items() if key != "hydra"}):
        if isinstance(value, str) and "${" in value and "${hydra:" not in value:
            with resolving(key):
                OmegaConf.select(composed, key)


def job_of(composed: DictConfig, single: bool) -> Job:
    """single: a run without -m, in hydra.run.dir. Hydra creates the folders, so a ~ in them is expanded in place."""
    _resolve_each(composed)
    with resolving(), current(composed), read_write(composed.hydra):
        for name in ("sweep", "run"):
            node = composed.hydra[name]
            if (folder := folder_at_home(f"hydra.{name}.dir", node.dir)) != node.dir:
                node.dir = folder
        sweep = os.path.abspath(str(composed.hydra.sweep.dir))
        inside = composed.hydra.run.dir if single else os.path.join(sweep, str(composed.hydra.sweep.subdir))
        return Job(composed, Path(os.path.abspath(str(inside))), Path(sweep))


def folder_at_home(key: str, folder: Any) -> str:
    if not isinstance(folder, str) or not folder.strip():
        raise UsageError(f"{key}={as_typed(folder)}: must be the path of a folder, such as outputs/default")
    try:
        return files.at_home(folder)
    except UsageError as error:
        raise UsageError(f"{key}={error}") from error


def require_place(folder: Path) -> None:
    """Raises UsageError if the folder, or its first parent that exists, cannot be written to."""
    try:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        with tempfile.TemporaryFile(dir=there):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(folder)}: is not a writable folder ({reason}); choose another name=... or "
                         "hydra.sweep.dir=...") from error


def compose(context: HydraContext, config: DictConfig, overrides: Sequence[Sequence[str]], first: int) -> list[DictConfig]:
    """The configs of all jobs, composed as by Hydra's own launchers."""
    configs, known = [], remember(context.config_loader)
    for number, words in enumerate(overrides, first):
        composed = known.take(config, words)
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        configs.append(composed)
    return configs


def refuse(jobs: Sequence[Job]) -> None:
    """Check every job, and that no two share a folder, before anything is loaded or written. Raises UsageError."""
    problems = []
    for job in jobs:
        try:
            _refuse_lists(job)
            check(job.settings)
            if not job.folder.is_relative_to(job.sweep):
                raise UsageError(f"hydra.run.dir={shown(job.folder)}: is outside the folder of the sweep, {shown(job.sweep)}; "
                                 "write hydra.sweep.dir=... or name=... instead")
            if not (job.folder / files.NUMBERS).is_file():
                require_place(job.folder)
        except UsageError as error:
            problems.append(str(error))
    folders = [job.folder for job in jobs]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        problems.append(_one_folder([job for job in jobs if job.folder == twice]))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))


def _refuse_lists(job: Job) -> None:
    """Raises UsageError for a list of choices of one group, which Hydra would merge."""
    words: Any = OmegaConf.to_container(job.composed.hydra.overrides.task)
    for word in words:
        group, _, value = word.partition("=")
        if group in ONE_CHOICE and value.startswith("["):
            raise UsageError(f"{word}: is one choice; to sweep over several, write {group}={value.strip('[]')} with -m")


def _one_folder(jobs: Sequence[Job]) -> str:
    first, second = (dict(files.flat(job.settings)) for job in jobs[:2])
    if first == second:
        return f"{len(jobs)} jobs of this sweep are the same SAE, {shown(jobs[0].folder)}: give each value once"
    key = next((key for key in first if key in second and first[key] != second[key]), "tokens")
    fix = f"the others a name of their own, such as 'name={key.split('.')[-1]}_${{{key}}}'"
    if first.get("arch._target_") != second.get("arch._target_"):
        fix = "each file in conf/arch a `name:` of its own"
    if key == "sparsity":
        fix = "one sparsity alone: with a fixed arch.coefficient it is no target"
    return (f"{len(jobs)} jobs of this sweep have the folder {shown(jobs[0].folder)}: {key} is not in its name; give {fix}")


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that can share an activation stream, in order."""
    by_key: dict[str, list[Job]] = {}
    for job in jobs:
        shared = {key: value for key, value in job.settings.items() if key not in MAY_DIFFER_IN_A_GROUP}
        by_key.setdefault(json.dumps(shared, sort_keys=True, default=str), []).append(job)
    return [part for group in by_key.values() for part in _that_fit(group)]


def _that_fit(group: Sequence[Job]) -> Iterator[list[Job]]:
    """The group, in parts if it has run out of memory before."""
    most = min([len(group), *(known for job in group if (known := checkpoints.max_group_size(job.folder)))])
    for first in range(0, len(group), most):
        yield list(group[first : first + most])


def shown(path: Path) -> str:
    """The path relative to the working directory, if it is inside."""
    inside = path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd()) if inside else path)
