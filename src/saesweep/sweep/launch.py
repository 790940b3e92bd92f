"""The grouping launcher: composes and checks all jobs, and trains those that can share an activation stream together.

hydra_jobs.py runs each group inside Hydra's own `run_job`, so that a job leaves what the basic launcher leaves.
"""
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf

from saesweep.data.resources import Resources
from saesweep.errors import UsageError, exit_on_usage_error, reason
from saesweep.runtime import signals
from saesweep.runtime.console import working
from saesweep.storage import checkpoints, files
from saesweep.sweep import job_record, rollback, studies
from saesweep.sweep.compilation import compiling
from saesweep.sweep.engines.base import Engine
from saesweep.sweep.engines.choose import engine_of
from saesweep.sweep.engines.worker import RanksOutOfMemory
from saesweep.sweep.hydra_jobs import Result, Setup, enter, run_group
from saesweep.sweep.jobs import Job, compose, groups, job_of, refuse, shown
from saesweep.sweep.known_folders import in_its_folder, without_repeated
from saesweep.sweep.live_table import live
from saesweep.sweep.plan import describe

log = logging.getLogger(__name__)


class JobsFailed(CompactHydraException):
    """Shown by Hydra at the end instead of the first traceback; all tracebacks are in the logs."""


def launch(hydra: Setup, overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    setup_globals()
    hydra.log_as_hydra()
    configs = compose(hydra.context, hydra.config, overrides, first)
    if hydra.run is None:
        return _plain_jobs(hydra, configs)
    with exit_on_usage_error(), signals.exit_codes():
        jobs = [in_its_folder(job_of(composed, single=False)) for composed in configs]
        once = without_repeated(jobs, overrides)
        returns = dict(zip([job.folder for job in once], _sweep(hydra, hydra.run, once), strict=True))
    hydra.log_as_hydra()
    return [returns[job.folder] for job in jobs]


def _sweep(hydra: Setup, run: str, jobs: Sequence[Job]) -> list[JobReturn]:
    resources = Resources()
    chosen: Any = OmegaConf.create({"engine": hydra.engine})
    engine = engine_of(files.at_home(OmegaConf.to_container(chosen, resolve=True))["engine"], resources)
    done, todo = planned(jobs, engine, resources)
    if jobs[0].settings["plan"]:
        return [_without_running(job, done.get(job.folder)) for job in jobs]
    rollback.commit()
    returns = {job.folder: _without_running(job, done[job.folder]) for job in jobs if job.folder in done}
    for folder in done:
        checkpoints.remove(folder)  # left by a kill just after it had finished
    from saesweep.sweep.wandb_summary import summaries  # pandas

    new = [job for group in todo for job in group]
    for group in todo:
        job_record.begin(group, resources)
    with summaries(new) as look:
        with live(new), engine:
            tickets = [engine.submit(run, group) for group in todo]
            for group, ticket in zip(todo, tickets, strict=True):
                train = partial(train_and_record, engine, ticket, group, run)
                with signals.exit_codes():  # per group: no further group starts if a library swallows the signal
                    returns |= zip([job.folder for job in group], run_group(hydra, group, train), strict=True)
                look()
        finished = [job for job in jobs if returns[job.folder].status != JobStatus.FAILED]
        for job in {job.sweep: job for job in finished}.values():
            show_pareto(job)
    return _failures(jobs, [returns[job.folder] for job in jobs], end_of(finished, resources))


def planned(jobs: Sequence[Job], engine: Engine, resources: Resources) -> tuple[dict[Path, dict[str, Any]], list[list[Job]]]:
    """Check the jobs and print the plan; returns the metrics of the finished jobs, and the groups of the others."""
    with compiling(jobs if engine.is_here else []):
        with working("checking the settings", always=False):  # imports torch
            refuse(jobs)
        job_record.refuse_others(jobs)
        stale = job_record.stale(jobs, resources)
        done = {job.folder: numbers for job in jobs if job.folder not in stale and (numbers := _kept(job)) is not None}
        todo = groups([job for job in jobs if job.folder not in done])
        after = studies.planned(jobs, [job for group in todo for job in group], resources)
        costs = [_estimate(group, resources) if engine.is_here else None for group in todo]
    print(describe([job for job in jobs if job.folder in done], todo, costs), *after, sep="\n\n", flush=True)
    return done, todo


def _estimate(group: Sequence[Job], resources: Resources) -> dict[str, Any]:
    with working("loading the libraries"):
        from saesweep.sweep import probe  # Lightning, transformers, pandas

    return probe.estimate([job.settings for job in group], resources, group[0].sweep)


def _kept(job: Job) -> dict[str, Any] | None:
    """The metrics of a finished job of the same settings, else None."""
    return None if job_record.differences(job) else job_record.finished(job)


def _without_running(job: Job, numbers: dict[str, Any] | None) -> JobReturn:
    hydra = OmegaConf.masked_copy(job.composed, ["hydra"])
    words: Any = OmegaConf.to_container(job.composed.hydra.overrides.task)
    return JobReturn(words, OmegaConf.create(job.settings), hydra, str(Path.cwd()), "train", JobStatus.COMPLETED, numbers)


def _plain_jobs(hydra: Setup, configs: Sequence[DictConfig]) -> list[JobReturn]:
    """`hydra.launcher.run=null`: the basic launcher's behaviour, for any application."""
    returns = []
    rollback.commit()
    Path(str(hydra.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    for composed in configs:
        log.info(f"#{composed.hydra.job.num} : {' '.join(filter_overrides(composed.hydra.overrides.task))}")
        returns.append(enter(hydra.task, composed, hydra.context))
        hydra.log_as_hydra()
    return returns


def train_and_record(engine: Engine, ticket: int, group: Sequence[Job], run: str) -> list[Result]:
    """Each job's metrics or error, recorded in its folder; an error of the group is that of each of its jobs."""
    try:
        results = _results(engine, ticket, group, run)
        assert len(results) == len(group), f"{len(results)} results for {len(group)} jobs"
    except Exception as error:
        results = list[Result]([error] * len(group))
    for error in dict.fromkeys(r for r in results if isinstance(r, Exception)):
        folders = ", ".join(shown(job.folder) for job, r in zip(group, results, strict=True) if r is error)
        log.error(f"failed: {folders}: {reason(error)}", exc_info=None if isinstance(error, UsageError) else error)
    for job, result in zip(group, results, strict=True):
        job_record.end(job, reason(result) if isinstance(result, Exception) else None)
    return results


def _results(engine: Engine, ticket: int, group: Sequence[Job], run: str) -> list[Result]:
    """Results of a group; ranks that run out of memory are restarted with half of the group at a time."""
    try:
        return engine.results(ticket)
    except RanksOutOfMemory:
        if len(group) == 1:
            raise
    checkpoints.halve_group_size([job.folder for job in group])
    parts = groups(group)
    tickets = [engine.submit(run, part) for part in parts]
    found = {}
    for part, number in zip(parts, tickets, strict=True):
        found |= zip([job.folder for job in part], _results(engine, number, part, run), strict=True)
    return [found[job.folder] for job in group]


def _failures(jobs: Sequence[Job], returns: list[JobReturn], problems: Sequence[str]) -> list[JobReturn]:
    """Hydra shows every failure with its folder and reason, and then the problems."""
    failed = [(job, ret) for job, ret in zip(jobs, returns, strict=True) if ret.status == JobStatus.FAILED]
    if failed:
        lines = [f"  {shown(job.folder)}: {reason(ret._return_value)}" for job, ret in failed]
        summary = JobsFailed("\n".join([f"{len(failed)} of {len(jobs)} SAEs failed:", *lines, *problems]))
        summary.__cause__ = failed[0][1]._return_value
        for _, ret in failed:
            ret.return_value = summary
    elif problems:
        sys.exit("\n".join(problems))
    return returns


def show_pareto(job: Job) -> None:
    """Write and print the Pareto table of the job's sweep; wandb_summary.py uploads it from the files.

    The comparison of the curves is not printed after each batch of a search.
    """
    from saesweep.report import pareto  # pandas

    found = pareto.report([job.sweep])
    files = pareto.write(found, job.sweep)
    searched = not str(job.composed.hydra.sweeper._target_).endswith("BasicSweeper")
    print(f"\n{pareto.table(found.df) if searched else pareto.text(found)}\n", *map(shown, files), sep="\n", flush=True)


def end_of(jobs: Sequence[Job], resources: Resources) -> list[str]:
    """Make the studies of the jobs' sweeps, if asked for, and print how to upload offline runs; returns what failed."""
    from saesweep.loggers import wandb_runs  # pandas

    problems = studies.run(jobs, resources)
    for sweep in dict.fromkeys(job.sweep for job in jobs):
        if (command := wandb_runs.sync_command(sweep)) is not None:
            print(f"\nto upload the offline runs to W&B: {command}", flush=True)
    return problems
