"""What the SAEs of a group are trained and evaluated on: a text read by a language model, or a known dictionary."""
from __future__ import annotations

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from saesweep.data import synthetic
from saesweep.data.disk_cache import CachedSource
from saesweep.data.harvest import LanguageModelSource, fastest_forward
from saesweep.data.text import Corpus
from saesweep.data.text_length import require
from saesweep.errors import UsageError
from saesweep.evaluation import evaluate
from saesweep.evaluation.evaluate import Measured, Subject
from saesweep.lm import models
from saesweep.lm.hooks import HookPoint, Rows, hook_point
from saesweep.results import checkpoints, files
from saesweep.runtime import distributed
from saesweep.runtime.console import Line
from saesweep.runtime.rng import SYNTHETIC_CALIBRATION, generator

log = logging.getLogger(__name__)
Settings = Mapping[str, Any]  # of one job: its config as plain containers
Numbers = dict[str, float | None]  # of one SAE: what eval.json holds


def has_lm(job: Settings) -> bool:
    return "synthetic" not in job["model"]["source"]


def point_of(job: Settings) -> HookPoint:
    return hook_point(job["model"], job["site"]["name"], job["layer"])


def device_of(job: Settings) -> torch.device:
    return torch.device("cuda" if job["trainer"]["accelerator"] in ("gpu", "cuda") else "cpu")


def require_device(job: Settings) -> None:
    if device_of(job).type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"trainer={job['trainer']['name']}: torch {torch.__version__} finds no CUDA GPU here; "
                         "write trainer=cpu, or install a build of torch for the driver that is there")


class ReadText:
    """A language model that reads a text."""

    def __init__(self, job: Settings, points: Sequence[HookPoint]):
        self.job, self.points = job, list(dict.fromkeys(points))
        self.corpus, self.tokenizer = enough_text(job)
        self.source: LanguageModelSource | CachedSource = self._cached() if job["cache"]["folder"] else self._read_now()

    def _read_now(self) -> LanguageModelSource:
        job, activations = self.job, self.job["activations"]
        return LanguageModelSource(
            language_model(job), self.corpus, self.points, context=job["context"], window=activations["window"],
            forward_tokens=forward_tokens(job, self.points),
            documents_per_pool=activations["documents_per_pool"], stream_seed=job["stream_seed"],
        )

    def _cached(self) -> CachedSource:
        job, activations = self.job, self.job["activations"]
        return CachedSource(
            Path(job["cache"]["folder"]), determined_by(self.job), self.points, cache(self._read_now),
            tokenizer=self.tokenizer, context=job["context"], window=activations["window"], device=device_of(job),
        )

    def calibration_rows(self) -> Rows:
        held_out = self._held_out(evaluate.CALIBRATION, self.job["evaluation"]["calibration_tokens"])
        return self.source.read(held_out.tokens)

    def evaluate(self, subjects: Sequence[Subject]) -> list[Measured | Exception]:
        numbers = self.job["evaluation"]
        held_out = self._held_out(evaluate.EVALUATION, numbers["tokens"])
        return evaluate.evaluate(
            lambda: language_model(self.job), self.source.read, held_out, subjects,
            lm_tokens=numbers["lm_tokens"], forward_tokens=numbers["forward_tokens"], progress=Line(),
        )

    def _held_out(self, purpose: int, tokens: int) -> evaluate.HeldOut:
        return evaluate.held_out_blocks(
            self.corpus, self.tokenizer, purpose, tokens=tokens,
            context=self.job["context"], stream_seed=self.job["stream_seed"],
        )


class KnownDictionary:
    """No language model: a known dictionary."""

    def __init__(self, job: Settings, points: Sequence[HookPoint]):
        self.numbers = job["evaluation"]
        self.source = synthetic.SyntheticSource(
            points[0], **job["model"]["source"]["synthetic"],
            window=job["activations"]["window"], stream_seed=job["stream_seed"], device=device_of(job),
        )

    def calibration_rows(self) -> Rows:
        random = generator(self.source.seed, SYNTHETIC_CALIBRATION)
        return {self.source.point: self.source.draw(self.numbers["calibration_tokens"], random)}

    def evaluate(self, subjects: Sequence[Subject]) -> list[Measured | Exception]:
        return synthetic.evaluate(self.source, subjects, self.numbers["tokens"])


Inputs = ReadText | KnownDictionary


def inputs_of(job: Settings, points: Sequence[HookPoint]) -> Inputs:
    """What the SAEs of a group are trained and evaluated on."""
    require_device(job)
    return ReadText(job, points) if has_lm(job) else KnownDictionary(job, points)


def determined_by(job: Settings) -> Settings:
    """All that determines the activations but the places where they are read; empty where the settings do."""
    if not has_lm(job):
        return {}
    model = {key: job["model"][key] for key in ("name", "source", "bos")}
    dtype = str(models.dtype_of(job["model"]["dtype"], str(device_of(job))))
    return {
        "model": model | {"dtype": dtype, "content": models.weights_identity(job["model"])},
        "text": _text_of(job)[0].identity, "context": job["context"], "stream_seed": job["stream_seed"],
        **{key: job["activations"][key] for key in ("window", "documents_per_pool", "forward_tokens")},
    }


def require_same(job: Settings, folders: Sequence[Path]) -> None:
    """A job's group resumes on the text and the weights of its checkpoints: files of the same name may have changed."""
    if changed := changed_content(job, folders):
        raise UsageError("\n".join([*changed.values(), f"give them back, {HOW_TO_REPLACE}"]))


def write_origin(job: Settings, folders: Sequence[Path]) -> None:
    """Beside what will be the results of the job's group: the next command compares."""
    if has_lm(job) and distributed.rank() == 0:
        for folder in folders:
            try:
                checkpoints.write_origin(folder, determined_by(job))
            except OSError as error:
                log.error("%s cannot be written: %s", folder / checkpoints.ORIGIN, error)


HOW_TO_REPLACE = "choose another name=..., or replace these results with overwrite=true"


def changed_content(job: Settings, folders: Sequence[Path]) -> dict[Path, str]:
    """For each folder whose checkpoints or results come from other text or weights, what differs.

    Another dtype rounds otherwise, and another commit may only have another readme: those are logged.
    """
    now, found = None, dict[Path, str]()  # the text is read only where there is something to compare
    for folder in folders:
        for origin in checkpoints.origins(folder):
            now, then = now or _flat(determined_by(job)), _flat(origin)
            lines = {key: f"{key}: {then[key]} there, {now[key]} now" for key in now if then.get(key, now[key]) != now[key]}
            if any(key == "text.digest" or key.startswith("model.content.") for key in lines.keys() - {"model.content.commit"}):
                head = f"{folder} was saved on other text or weights of the same name:"
                found[folder] = "\n  ".join([head, *lines.values()])
            elif lines:
                log.warning("%s was made with what is not exactly the same now: %s", folder, "; ".join(lines.values()))
    return found


def _flat(settings: Settings) -> dict[str, Any]:
    """As they come back from JSON."""
    return dict(files.flat(json.loads(json.dumps(settings, default=str))))


def enough_text(job: Settings) -> tuple[Corpus, models.Tokenizer]:
    """The text of a job, which is long enough for it, and what tokenises it; no weight is loaded to know that."""
    keys = ("text", "stream_seed", "model", "tokens", "batch_tokens", "context", "activations", "evaluation")
    asked = {key: job[key] for key in keys}
    return _enough_text(json.dumps(asked))


@lru_cache(maxsize=1)
def _enough_text(job: str) -> tuple[Corpus, models.Tokenizer]:
    asked = json.loads(job)
    corpus, tokenizer = _text_of(asked)
    require(corpus, tokenizer, asked)
    return corpus, tokenizer


def _text_of(job: Settings) -> tuple[Corpus, models.Tokenizer]:
    return _text(json.dumps(job["text"]), job["stream_seed"], json.dumps(job["model"]))


@lru_cache(maxsize=1)
def _text(text: str, stream_seed: int, model: str) -> tuple[Corpus, models.Tokenizer]:
    return Corpus(json.loads(text), stream_seed), models.load_tokenizer(json.loads(model))


def language_model(job: Settings) -> models.LanguageModel:
    """One load serves the plan's probe and the groups that follow, as long as the weights are the same."""
    content = json.dumps(models.weights_identity(job["model"]))
    return _loaded(json.dumps(job["model"]), str(device_of(job)), content)


@lru_cache(maxsize=1)
def _loaded(model: str, device: str, content: str) -> models.LanguageModel:
    return models.load(json.loads(model), device)


def forward_tokens(job: Settings, points: Sequence[HookPoint]) -> int:
    """What the language model takes at once; where that is to be measured, a process does it once."""
    wanted, window = job["activations"]["forward_tokens"], job["activations"]["window"]
    if wanted != "auto":
        return wanted
    return _fastest(json.dumps({key: job[key] for key in ("model", "trainer")}), tuple(points), job["context"], window)


@cache
def _fastest(job: str, points: tuple[HookPoint, ...], context: int, window: int) -> int:
    share = window // distributed.world_size()  # larger ones would leave ranks without any
    tokens = min(distributed.collected(fastest_forward(language_model(json.loads(job)), points, context, share)))
    log.info("activations.forward_tokens=auto: %s, about the fastest here", f"{tokens:,}")
    return tokens


def let_go() -> None:
    """The language model is loaded again by whoever needs it next."""
    _loaded.cache_clear()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
