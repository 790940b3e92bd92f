"""The jobs of one group, trained on one stream and evaluated together."""
from __future__ import annotations

import gc
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError

from saesweep import distributed, saelens, saves, signals
from saesweep.activations import ActivationStream, Position, Rows, Statistics
from saesweep.arch.base import SparseAutoencoder
from saesweep.calibration import meet_l0_
from saesweep.evaluation import Subject
from saesweep.instantiate import instantiate
from saesweep.logging import MemberInfo, SweepLogger
from saesweep.memory import keep_freed_memory, out_of_memory
from saesweep.metrics import dead_share
from saesweep.progress import Progress
from saesweep.saves import Cohort, Save
from saesweep.sites import HookPoint
from saesweep.sparsity import Coefficient
from saesweep.sweep.matter import Matter, Numbers, Settings, device_of, matter_of, point_of
from saesweep.training import Member, SAESweep

log = logging.getLogger(__name__)


def train_group(cfgs: Sequence[DictConfig], folders: Sequence[Path]) -> list[Numbers | Exception]:
    """Train the jobs' SAEs together; each folder gets metrics.csv, eval.json, sae/ and wandb/.

    What was saved goes on from there: SAEs that were saved after different numbers of steps go on one after the other.
    """
    keep_freed_memory()
    jobs = [OmegaConf.to_container(cfg, resolve=True) for cfg in cfgs]
    results = dict[int, Numbers | Exception]()
    waiting = saves.cohorts(list(map(Path, folders)))
    while waiting:
        gc.collect()  # of a group that did not fit into memory nothing is held any more
        cohort = waiting.pop(0)
        mine = [jobs[i] for i in cohort.members], [Path(folders[i]) for i in cohort.members]
        try:
            results |= zip(cohort.members, _train(*mine, cohort), strict=True)
        except Exception as error:
            if not out_of_memory(error) or len(cohort.members) == 1 or distributed.world() > 1:
                raise
            waiting[:0] = _halves(cohort, mine[1])
    return [results[i] for i in range(len(jobs))]


def _halves(cohort: Cohort, folders: Sequence[Path]) -> list[Cohort]:
    """Fewer SAEs at a time, from what each of them has saved; the plan of the next launch knows."""
    most = (len(folders) + 1) // 2
    log.warning("out of memory with %d SAEs: they go on %d at a time", len(folders), most)
    for folder in folders:
        saves.write_together(folder, most)
    found = []
    for first in range(0, len(folders), most):
        for part in saves.cohorts(folders[first : first + most]):
            found.append(part._replace(members=[cohort.members[first + i] for i in part.members]))
    return found


def _train(jobs: Sequence[Settings], folders: Sequence[Path], cohort: Cohort) -> list[Numbers | Exception]:
    points = [point_of(job) for job in jobs]
    matter = matter_of(jobs[0], points)
    module, stream = prepared(jobs, points, matter, cohort)
    if cohort.step:
        log.info("%s: from %s tokens on", ", ".join(m.label for m in module.members), f"{module.tokens:,}")
    for point, statistics in stream.statistics.items():
        log.info("%s", statistics.report(point))
    logger = _logger(jobs, folders)
    fit(module, stream, logger, jobs[0], folders)
    results = distributed.told(_finish(jobs, folders, module, stream, matter))
    for index, (folder, result) in enumerate(zip(folders, results, strict=True)):
        failed = str(result) if isinstance(result, Exception) else None
        logger.finish(index, None if failed else result, failed)
        if not failed and distributed.rank() == 0:
            saves.remove(folder)
    return results


def prepared(
    jobs: Sequence[Settings], points: Sequence[HookPoint], matter: Matter, cohort: Cohort, **more: Any
) -> tuple[SAESweep, ActivationStream]:
    """The group and its stream, new or as they were saved."""
    shared = jobs[0]
    stream = _stream(shared, matter.source, math.ceil(shared["tokens"] / shared["batch_tokens"]))
    found = [save for save in cohort.saves if save is not None]
    if found:
        statistics = {point: _statistics(save) for point, save in zip(points, found, strict=True)}
        stream.resume(Position(**found[0].state["position"]), statistics)
    members = [_member(job, point, stream) for job, point in zip(jobs, points, strict=True)]
    sizes = {"log_tokens": shared["log_tokens"], "dead_after": shared["evaluation"]["dead_after"], "progress": Progress()}
    module = SAESweep(members, steps=stream.steps, batch_tokens=shared["batch_tokens"], **(sizes | more))
    module.steps_done = cohort.step
    for member, save in zip(members, found):  # noqa: B905
        module.restore_(member, *save)
    return module, stream


def _stream(job: Settings, source: Any, steps: int) -> ActivationStream:
    numbers = job["activations"]
    return ActivationStream(
        source, steps=steps, batch_tokens=job["batch_tokens"], stream_seed=job["stream_seed"],
        center=numbers["center"], max_norm=numbers["max_norm"], statistics=numbers["statistics"],
    )


def _member(job: Settings, point: HookPoint, stream: ActivationStream) -> Member:
    arch = job["arch"]
    coefficient = Coefficient(job["sparsity"], fixed=arch["coefficient"], **arch["control"])
    sae = build(job, len(stream.statistics[point].mean))
    return Member(f"{arch['name']}/{job['sparsity']}", point, sae, coefficient, arch["optimizer"])


def build(job: Settings, d_in: int) -> SparseAutoencoder:
    """An untrained SAE from its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job["seed"])
        sae = instantiate(
            job["arch"], leave=("name", "coefficient", "control", "optimizer"),
            d_in=d_in, d_sae=job["width"], sparsity=job["sparsity"],
        )
    sae.dense = job["dense"]
    return sae


def _logger(jobs: Sequence[Settings], folders: Sequence[Path]) -> SweepLogger:
    chosen = jobs[0].get("logger") or {}
    infos = [
        MemberInfo(
            Path(folder), job, job["name"], job["model"]["name"], job["site"]["name"], job["layer"],
            job["arch"]["name"], job["sparsity"], job["seed"],
        )
        for job, folder in zip(jobs, folders, strict=True)
    ]
    return SweepLogger(infos, csv="csv" in chosen, wandb=chosen.get("wandb"))


def fit(module: SAESweep, stream: ActivationStream, logger: SweepLogger, job: Settings, folders: Sequence[Path]) -> None:
    """Train to the end. All members are saved every `save_tokens` and `save_minutes`, at the end, and on a signal."""
    saver = Saver(stream, folders, max(1, job["save_tokens"] // job["batch_tokens"]), 60 * job["save_minutes"])
    module.after_step = saver
    if len(stream):
        trainer = instantiate(
            job["trainer"], logger=logger, max_steps=len(stream), max_epochs=-1,
            enable_progress_bar=False, enable_checkpointing=False, log_every_n_steps=module.log_steps,
        )
        try:
            trainer.fit(module, stream)
        except (KeyboardInterrupt, SystemExit):
            saver.save(module)
            raise


class Saver:
    """Called after every step: saves all members once that is due, or once somebody wants to stop."""

    AGREE = 16  # steps between two moments at which several ranks agree on what only one of them knows

    def __init__(self, stream: ActivationStream, folders: Sequence[Path], every_steps: int, every_seconds: float):
        self.stream, self.folders = stream, folders
        self.every_steps, self.every_seconds, self.last = every_steps, every_seconds, time.monotonic()

    def __call__(self, module: SAESweep) -> None:
        due = module.steps_done % self.every_steps == 0 or module.steps_done == module.total_steps
        stop = False
        if distributed.world() == 1 or module.steps_done % self.AGREE == 0:
            due |= distributed.agreed(time.monotonic() - self.last > self.every_seconds)
            stop = distributed.agreed(signals.asked_to_stop())
        if due or stop:
            self.save(module)
        if stop:
            raise SystemExit(0)

    def save(self, module: SAESweep) -> None:
        with signals.deferred():
            for member in module.running:
                module.stop_where_not_finite_(member)
            problems = {}
            for index, (member, folder) in enumerate(zip(module.members, self.folders, strict=True)):
                if not member.failed and (problem := self._write(module, member, folder)):
                    problems[index] = f"{member.label}: cannot be saved: {problem}, after {module.tokens:,} tokens"
            for index, reason in distributed.told(problems).items():
                module.members[index].stop_(reason)
        self.last = time.monotonic()

    def _write(self, module: SAESweep, member: Member, folder: Path) -> str | None:
        """What went wrong; rank 0 alone writes."""
        tensors, state = module.state_of(member)
        if distributed.rank() > 0:
            return None
        statistics, numbers = self.stream.statistics[member.point].saved()
        state |= {"position": self.stream.position_after(module.steps_done)._asdict(), "statistics": numbers}
        try:
            saves.write(folder, module.steps_done, Save(tensors | statistics, state))
        except (OSError, SafetensorError) as error:
            return str(error)
        return None


def _statistics(save: Save) -> Statistics:
    return Statistics.restored(save.tensors, save.state["statistics"])


def _finish(
    jobs: Sequence[Settings], folders: Sequence[Path], module: SAESweep, stream: ActivationStream, matter: Matter
) -> list[Numbers | Exception]:
    """Fold, evaluate, write; an SAE that fails is returned as an error, the others go on."""
    module.members.to(device_of(jobs[0]))  # where the language model is; Lightning leaves them on the CPU
    _calibrate(jobs, module, stream, matter)
    done = [index for index, member in enumerate(module.members) if not member.failed]
    subjects = []
    for member in (module.members[index] for index in done):
        statistics = stream.statistics[member.point]
        member.sae.requires_grad_(False).fold_(statistics.mean.to(member.sae.b_dec.device), statistics.scale)
        subjects.append(Subject(member.sae, member.point, statistics))
    measured = dict(zip(done, _measured(matter, subjects), strict=True))
    results: list[Numbers | Exception] = []
    for index, (job, folder, member) in enumerate(zip(jobs, folders, module.members, strict=True)):
        result = RuntimeError(member.failed) if member.failed else measured[index]
        if not isinstance(result, Exception):
            result |= _known_from_training(module, member)
            try:
                _leave(job, folder, member, result)
            except (OSError, SafetensorError) as error:
                result = error
        results.append(result)
    return results


def _measured(matter: Matter, subjects: Sequence[Subject]) -> list[Numbers | Exception]:
    """Every rank evaluates its share of the SAEs."""
    mine = range(distributed.rank(), len(subjects), distributed.world())
    found = dict(zip(mine, matter.evaluate([subjects[i] for i in mine]), strict=True))
    everybodys = {i: numbers for part in distributed.collected(found) for i, numbers in part.items()}
    return [everybodys[i] for i in range(len(subjects))]


def _known_from_training(module: SAESweep, member: Member) -> Numbers:
    return {
        "dead": dead_share(member.sae.tokens_since_fired, module.tokens, module.dead_after),
        "coefficient": float(member.coefficient.value) if member.sae.penalised else None,
        "d_in": member.sae.d_in, "d_sae": member.sae.d_sae, "tokens": module.tokens,
    }


def _leave(job: Settings, folder: Path, member: Member, numbers: Numbers) -> None:
    """The SAE, then its numbers, which say that it is finished."""
    if distributed.rank() == 0:
        saelens.save(folder / "sae", member.sae, job, numbers)
        _write_json(folder / "eval.json", numbers)


def _calibrate(jobs: Sequence[Settings], module: SAESweep, stream: ActivationStream, matter: Matter) -> None:
    """Where L0 has a target, the thresholds meet it on held-out text; a fixed coefficient leaves L0 where it falls."""
    rows: Rows = {}
    for job, member in zip(jobs, module.members, strict=True):
        if member.failed or not member.sae.thresholded or job["arch"]["coefficient"] is not None:
            continue
        rows = rows or matter.calibration_rows()
        statistics = stream.statistics[member.point]
        x = rows[member.point]
        shift = meet_l0_(member.sae, statistics.apply(x[statistics.ordinary(x)]))
        log.info("%s: thresholds shifted by %+.4g to meet L0 on held-out text", member.label, shift)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    finite = {key: None if isinstance(value, float) and value != value else value for key, value in content.items()}
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_text(json.dumps(finite, indent=1))
    draft.replace(file)
