"""The jobs of one group, trained on one stream and evaluated together."""
from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from saesweep import evaluation, models, saelens, synthetic
from saesweep.activations import ActivationStream, LanguageModelSource, Rows, generator
from saesweep.allocator import keep_freed_memory
from saesweep.arch.base import SparseAutoencoder
from saesweep.calibration import meet_l0_
from saesweep.evaluation import Subject
from saesweep.instantiate import instantiate
from saesweep.logging import MemberInfo, SweepLogger
from saesweep.metrics import dead_share
from saesweep.progress import Line, Progress
from saesweep.sites import HookPoint, hook_point
from saesweep.sparsity import Coefficient
from saesweep.text import Corpus, require
from saesweep.training import Member, SAESweep

log = logging.getLogger(__name__)
Settings = Mapping[str, Any]
Numbers = dict[str, float | None]


def train_group(cfgs: Sequence[DictConfig], folders: Sequence[Path]) -> list[Numbers | Exception]:
    """Train the jobs' SAEs together; each folder gets metrics.csv, eval.json, sae/ and wandb/."""
    keep_freed_memory()
    jobs = [OmegaConf.to_container(cfg, resolve=True) for cfg in cfgs]
    shared = jobs[0]
    points = [_point(job) for job in jobs]
    subject_matter = _LanguageModel(shared, points) if _has_lm(shared) else _Synthetic(shared, points)
    steps = math.ceil(shared["tokens"] / shared["batch_tokens"])
    stream = _stream(shared, subject_matter.source, steps)
    for point, statistics in stream.statistics.items():
        log.info("%s", statistics.report(point))

    members = [_member(job, point, stream) for job, point in zip(jobs, points, strict=True)]
    module = SAESweep(
        members, steps=steps, batch_tokens=shared["batch_tokens"],
        log_tokens=shared["log_tokens"], dead_after=shared["evaluation"]["dead_after"], progress=Progress(),
    )
    logger = _logger(jobs, folders)
    _fit(module, stream, logger, shared, folders)
    results = _finish(jobs, [Path(folder) for folder in folders], module, stream, subject_matter)
    for index, (member, result) in enumerate(zip(members, results, strict=True)):
        logger.finish(index, None if member.failed else result, member.failed or None)
    (Path(folders[0]) / "checkpoint" / "last.ckpt").unlink(missing_ok=True)  # from here on there is nothing to resume
    return results


def _has_lm(job: Settings) -> bool:
    return "synthetic" not in job["model"]["source"]


def _point(job: Settings) -> HookPoint:
    return hook_point(job["model"], job["site"]["name"], job["layer"])


def _device(job: Settings) -> torch.device:
    return torch.device("cuda" if job["trainer"]["accelerator"] in ("gpu", "cuda") else "cpu")


class _LanguageModel:
    """A language model that reads a text."""

    def __init__(self, job: Settings, points: Sequence[HookPoint]):
        self.job = job
        self.corpus = Corpus(job["text"], job["stream_seed"])
        tokenizer = models.load_tokenizer(job["model"])
        require(self.corpus, tokenizer, job["tokens"], job["context"])
        require(self.corpus, tokenizer, job["evaluation"]["tokens"], job["context"], "held_out")
        self.lm = _loaded(json.dumps(job["model"]), str(_device(job)))
        activations = job["activations"]
        self.source = LanguageModelSource(
            self.lm, self.corpus, list(dict.fromkeys(points)), context=job["context"], window=activations["window"],
            lm_batch=activations["lm_batch"], documents_per_pool=activations["documents_per_pool"],
            stream_seed=job["stream_seed"],
        )

    def calibration_rows(self) -> Rows:
        tokens = self._held_out(evaluation.CALIBRATION, self.job["evaluation"]["calibration_tokens"])
        return self.source.read(tokens)

    def evaluate(self, subjects: Sequence[Subject]) -> list[Numbers]:
        numbers = self.job["evaluation"]
        return evaluation.evaluate(
            self.lm, self._held_out(evaluation.EVALUATION, numbers["tokens"]), subjects,
            lm_tokens=numbers["lm_tokens"], lm_batch=numbers["lm_batch"], progress=Line(),
        )

    def _held_out(self, purpose: int, tokens: int) -> torch.Tensor:
        return evaluation.held_out_blocks(
            self.corpus, self.lm, purpose, tokens=tokens, context=self.job["context"], stream_seed=self.job["stream_seed"]
        )


class _Synthetic:
    """No language model: a known dictionary."""

    def __init__(self, job: Settings, points: Sequence[HookPoint]):
        self.numbers = job["evaluation"]
        self.source = synthetic.SyntheticSource(
            points[0], **job["model"]["source"]["synthetic"],
            window=job["activations"]["window"], stream_seed=job["stream_seed"],
        )

    def calibration_rows(self) -> Rows:
        return {self.source.point: self.source.draw(self.numbers["calibration_tokens"], generator(self.source.seed, 5))}

    def evaluate(self, subjects: Sequence[Subject]) -> list[Numbers]:
        return synthetic.evaluate(self.source, subjects, self.numbers["tokens"])


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> models.LanguageModel:
    """One load serves the plan's probe and the groups that follow."""
    return models.load(json.loads(model), device)


def _stream(job: Settings, source: Any, steps: int) -> ActivationStream:
    numbers = job["activations"]
    return ActivationStream(
        source, steps=steps, batch_tokens=job["batch_tokens"], stream_seed=job["stream_seed"],
        center=numbers["center"], max_norm=numbers["max_norm"], statistics=numbers["statistics"],
    )


def _member(job: Settings, point: HookPoint, stream: ActivationStream) -> Member:
    arch = job["arch"]
    coefficient = Coefficient(job["sparsity"], fixed=arch["coefficient"], **arch["control"])
    sae = _sae(job, len(stream.statistics[point].mean))
    return Member(f"{arch['name']}/{job['sparsity']}", point, sae, coefficient, arch["optimizer"])


def _sae(job: Settings, d_in: int) -> SparseAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job["seed"])
        return instantiate(
            job["arch"], leave=("name", "coefficient", "control", "optimizer"),
            d_in=d_in, d_sae=job["width"], sparsity=job["sparsity"],
        )


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
    jobs: Sequence[Settings], folders: Sequence[Path], module: SAESweep, stream: ActivationStream, subject_matter: Any
) -> list[Numbers | Exception]:
    """Fold, evaluate, write; a member that failed in training is reported, the others go on."""
    done = [member for member in module.members if not member.failed]
    subjects = []
    _calibrate(jobs, module, stream, subject_matter)
    for member in done:
        statistics = stream.statistics[member.point]
        member.sae.requires_grad_(False).fold_(statistics.mean.to(member.sae.b_dec.device), statistics.scale)
        subjects.append(Subject(member.sae, member.point, statistics))
    measured = dict(zip(map(id, done), subject_matter.evaluate(subjects) if subjects else [], strict=True))
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


def _calibrate(jobs: Sequence[Settings], module: SAESweep, stream: ActivationStream, subject_matter: Any) -> None:
    """Where L0 has a target, the thresholds meet it on held-out text; a fixed coefficient leaves L0 where it falls."""
    rows: Rows = {}
    for job, member in zip(jobs, module.members, strict=True):
        if member.failed or not member.sae.thresholded or job["arch"]["coefficient"] is not None:
            continue
        rows = rows or subject_matter.calibration_rows()
        statistics = stream.statistics[member.point]
        x = rows[member.point]
        shift = meet_l0_(member.sae, statistics.apply(x[statistics.ordinary(x)]))
        log.info("%s: thresholds shifted by %+.4g to meet L0 on held-out text", member.label, shift)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    finite = {key: None if isinstance(value, float) and value != value else value for key, value in content.items()}
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_text(json.dumps(finite, indent=1))
    draft.replace(file)
