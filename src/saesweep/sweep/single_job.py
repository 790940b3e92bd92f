"""One job, in the folder that Hydra has created for it: `python train.py` without -m, and each job of the basic launcher."""
import sys
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from saesweep.data.resources import Resources
from saesweep.errors import TrainingFailed, UsageError, exit_on_usage_error
from saesweep.runtime import program, signals
from saesweep.storage import checkpoints, files
from saesweep.sweep import job_record, rollback
from saesweep.sweep.engines.local import LocalEngine
from saesweep.sweep.jobs import Job, job_of, shown
from saesweep.sweep.launch import end_of, planned, show_pareto, train_and_record
from saesweep.sweep.live_table import live
from saesweep.sweep.studies import name_of

RUN = "saesweep.sweep.group.train_group"


def train(cfg: DictConfig) -> dict[str, Any] | None:
    """Train a group of one; returns the metrics, as the job's return value for Hydra's sweepers."""
    hydra: Any = HydraConfig.instance().cfg
    resources = Resources()
    with exit_on_usage_error(), signals.exit_codes():
        composed = cast(DictConfig, OmegaConf.merge({"hydra": hydra.hydra}, cfg))
        job = job_of(composed, single=hydra.hydra.mode != RunMode.MULTIRUN)
        rollback.remember_new(job.folder, rollback.hydra_files(hydra.hydra))
        try:
            _refuse_study(job, hydra.hydra)
            done, todo = planned([job], LocalEngine(resources), resources)
        except UsageError:
            job_record.restore(job)
            raise
        if job.settings["plan"]:
            return None
        rollback.commit()
        for folder in done:
            checkpoints.remove(folder)  # left by a kill just after it had finished
        from saesweep.sweep.wandb_summary import summaries  # pandas

        with summaries([job] if todo else []):
            numbers = _train(job, resources) if todo else done[job.folder]
            show_pareto(job)
        if problems := end_of([job], resources):
            sys.exit("\n".join(problems))
        return numbers


def _refuse_study(job: Job, hydra: DictConfig) -> None:
    """Raises UsageError for a study with Hydra's basic launcher, whose jobs know nothing of each other."""
    study = name_of(job.settings)
    if study != "none" and hydra.mode == RunMode.MULTIRUN:
        raise UsageError(f"study={study}: this launcher trains each SAE by itself, so none is the last; leave study out, and "
                         f"run {program.called('study')} {shown(job.sweep)} afterwards")


def _train(job: Job, resources: Resources) -> dict[str, Any]:
    job_record.begin([job], resources)
    with live([job]), LocalEngine(resources) as engine:
        ticket = engine.submit(RUN, [job])
        result = train_and_record(engine, ticket, [job], RUN)[0]
    if isinstance(result, TrainingFailed):
        lr = job.settings["arch"]["optimizer"]["lr"]
        fix = "" if "the activations at" in str(result) else f"; lower arch.optimizer.lr={lr:g}"
        raise TrainingFailed(f"{result} (see {shown(job.folder / files.FAILED)}){fix}") from result
    if isinstance(result, Exception):
        raise result
    return result
