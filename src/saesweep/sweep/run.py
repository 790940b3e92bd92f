"""The jobs of one group, trained on one stream and evaluated together."""
from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from saesweep import saelens
from saesweep.activations import ActivationStream, Rows
from saesweep.allocator import keep_freed_memory
from saesweep.arch.base import SparseAutoencoder
from saesweep.calibration import meet_l0_
from saesweep.evaluation import Subject
from saesweep.instantiate import instantiate
from saesweep.logging import MemberInfo, SweepLogger
from saesweep.metrics import dead_share
from saesweep.progress import Progress
from saesweep.sites import HookPoint
from saesweep.sparsity import Coefficient
from saesweep.sweep.matter import Matter, Numbers, Settings, device_of, matter_of, point_of
from saesweep.training import Member, SAESweep

log = logging.getLogger(__name__)


def train_group(cfgs: Sequence[DictConfig], folders: Sequence[Path]) -> list[Numbers | Exception]:
    """Train the jobs' SAEs together; each folder gets metrics.csv, eval.json, sae/ and wandb/."""
    keep_freed_memory()
    jobs = [OmegaConf.to_container(cfg, resolve=True) for cfg in cfgs]
    shared = jobs[0]
    points = [point_of(job) for job in jobs]
    matter = matter_of(shared, points)
    steps = math.ceil(shared["tokens"] / shared["batch_tokens"])
    stream = _stream(shared, matter.source, steps)
    for point, statistics in stream.statistics.items():
        log.info("%s", statistics.report(point))

    members = [_member(job, point, stream) for job, point in zip(jobs, points, strict=True)]
    module = SAESweep(
        members, steps=steps, batch_tokens=shared["batch_tokens"],
        log_tokens=shared["log_tokens"], dead_after=shared["evaluation"]["dead_after"], progress=Progress(),
    )
    logger = _logger(jobs, folders)
    _fit(module, stream, logger, shared, folders)
    results = _finish(jobs, [Path(folder) for folder in folders], module, stream, matter)
    for index, (member, result) in enumerate(zip(members, results, strict=True)):
        logger.finish(index, None if member.failed else result, member.failed or None)
    (Path(folders[0]) / "checkpoint" / "last.ckpt").unlink(missing_ok=True)  # from here on there is nothing to resume
    return results


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


def _fit(module: SAESweep, stream: ActivationStream, logger: SweepLogger, job: Settings, folders: Sequence[Path]) -> None:
    """The whole group is saved every `save_tokens`; the same command continues from there."""
    place = Path(folders[0]) / "checkpoint"
    every = max(1, job["save_tokens"] // job["batch_tokens"])
    saves = ModelCheckpoint(dirpath=place, filename="last", every_n_train_steps=every, enable_version_counter=False)
    trainer = instantiate(
        job["trainer"], logger=logger, callbacks=[saves], max_steps=module.total_steps, max_epochs=-1,
        enable_progress_bar=False, log_every_n_steps=module.log_steps,
    )
    last = place / "last.ckpt"
    trainer.fit(module, stream, ckpt_path=str(last) if last.exists() else None, weights_only=True)


def _finish(
    jobs: Sequence[Settings], folders: Sequence[Path], module: SAESweep, stream: ActivationStream, matter: Matter
) -> list[Numbers | Exception]:
    """Fold, evaluate, write; a member that failed in training is reported, the others go on."""
    done = [member for member in module.members if not member.failed]
    subjects = []
    module.members.to(device_of(jobs[0]))  # where the language model is; Lightning leaves them on the CPU
    _calibrate(jobs, module, stream, matter)
    for member in done:
        statistics = stream.statistics[member.point]
        member.sae.requires_grad_(False).fold_(statistics.mean.to(member.sae.b_dec.device), statistics.scale)
        subjects.append(Subject(member.sae, member.point, statistics))
    measured = dict(zip(map(id, done), matter.evaluate(subjects) if subjects else [], strict=True))
    results: list[Numbers | Exception] = []
    for job, folder, member in zip(jobs, folders, module.members, strict=True):
        if member.failed:
            results.append(RuntimeError(member.failed))
            continue
        numbers = measured[id(member)] | {
            "dead": dead_share(member.sae.tokens_since_fired, module.tokens, module.dead_after),
            "coefficient": float(member.coefficient.value) if member.sae.penalised else None,
            "d_in": member.sae.d_in, "d_sae": member.sae.d_sae, "tokens": module.tokens,
        }
        saelens.save(folder / "sae", member.sae, job, numbers)
        _write_json(folder / "eval.json", numbers)
        results.append(numbers)
    return results


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
