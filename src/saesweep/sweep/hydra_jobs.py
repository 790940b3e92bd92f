"""Hydra's own `run_job` around each job of a group: its folder, .hydra files, log file, callbacks and JobReturn.

`run_job` is entered for every job of the group, and the innermost call trains the group.
"""
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from saesweep.sweep.jobs import Job

Result = dict[str, Any] | Exception  # the metrics of eval.json, or the error


@dataclass(frozen=True)
class Setup:
    """What Hydra gives a launcher."""

    run: str | None
    engine: Mapping[str, Any] | None
    context: HydraContext
    task: TaskFunction
    config: DictConfig

    def log_as_hydra(self) -> None:
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)


def run_group(hydra: Setup, group: Sequence[Job], train: Callable[[], list[Result]]) -> list[JobReturn]:
    """Enter `run_job` of every job of the group, and train the group in the innermost."""
    returns: list[JobReturn] = [JobReturn()] * len(group)
    results: list[Result] = []

    def enter_job(i: int) -> None:
        def task(_: DictConfig) -> dict[str, Any]:
            if i + 1 < len(group):
                enter_job(i + 1)
            else:
                results.extend(train())
            result = results[i]
            if isinstance(result, Exception):
                raise result
            return result

        returns[i] = enter(task, group[i].composed, hydra.context, configure_logging=False)

    with _logs(group), _deep_enough(len(group)):
        enter_job(0)
    return returns


def enter(task: Callable[[DictConfig], Any], composed: DictConfig, context: HydraContext, **how: bool) -> JobReturn:
    return run_job(task_function=task, config=composed, hydra_context=context,
                   job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir", **how)


@contextmanager
def _logs(group: Sequence[Job]) -> Iterator[None]:
    """Hydra's job logging of the first job, written to the log file of every job of the group."""
    for job in group:
        with read_write(job.composed.hydra.runtime), open_dict(job.composed.hydra.runtime):
            job.composed.hydra.runtime.output_dir = str(job.folder)
    HydraConfig.instance().set_config(group[0].composed)
    configure_log(group[0].composed.hydra.job_logging, group[0].composed.hydra.verbose)
    root, added = logging.getLogger(), []
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        for job in group[1:]:
            other = logging.FileHandler(job.folder / Path(handler.baseFilename).name)
            other.setFormatter(handler.formatter)
            other.setLevel(handler.level)
            added.append(other)
            root.addHandler(other)
    try:
        yield
    finally:
        for other in added:
            root.removeHandler(other)
            other.close()


@contextmanager
def _deep_enough(jobs: int) -> Iterator[None]:
    """Raise the recursion limit: each nested `run_job` is a few frames of Python."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 20 * jobs)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
