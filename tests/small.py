"""Small trainings for the tests: a text of random words, configs for it, and a group trained as by `train_group`."""

import json
import random
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from standin.cli import ROOT, composed

from saesweep.data import text_length
from saesweep.data.held_out import held_out_blocks
from saesweep.data.resources import Resources
from saesweep.data.text import Corpus
from saesweep.lm import models
from saesweep.lm.models import LanguageModel
from saesweep.lm.tokenizer import Tokenizer
from saesweep.storage.checkpoints import Cohort, cohorts
from saesweep.sweep import group, group_setup, inputs
from saesweep.sweep.inputs import point_of
from saesweep.training.fit import fit
from saesweep.training.module import SAESweep
from saesweep.training.origin import determined_by

CONF = Path(__file__).parents[1] / "conf"
SIZES = (
    "context=32", "width=96", "sparsity=4", "tokens=3200", "batch_tokens=64", "log_tokens=640", "logger=csv",
    "activations={window: 1024, passes: 1, statistics: 512, documents_per_pool: 8, forward_tokens: 256}",
    "evaluation={tokens: 512, lm_tokens: 256, lm_blocks: null, calibration_tokens: 512}",
)
RESULT_FILES = ("eval.json", "cfg.json", "sae_weights.safetensors", "metrics.csv")
ARCHS = ("relu", "gated", "jumprelu", "topk", "batchtopk")


RESOURCES = Resources()  # the tests share one text and one model


def inputs_of(job: dict, points: list) -> object:
    return inputs.inputs_of(job, points, RESOURCES)


def train_group(jobs: list[dict], folders: list[Path]) -> list:
    return group.train_group(jobs, folders, RESOURCES)


def require_enough_tokens(corpus: Corpus, tokenizer: Tokenizer, job: dict) -> None:
    text_length.require_enough_tokens(corpus, tokenizer, job, lambda purpose, tokens: held_out_blocks(
        corpus, tokenizer, purpose, tokens=tokens, context=job["context"], stream_seed=job["stream_seed"]))


def write_text(folder: Path, documents: int = 60, seed: int = 0) -> str:
    """Writes a jsonl file of random words; its path, for text.glob."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("etaoinshr", k=draw.randint(2, 7))) for _ in range(200)]
    texts = [" ".join(draw.choices(words, k=draw.randint(20, 80))) for _ in range(documents)]
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def once_for_all_workers(factory: pytest.TempPathFactory, worker: str, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, in the worker that asks for it first."""
    shared = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    with FileLock(shared / f"{name}.lock"):
        if not (shared / f"{name}.made").exists():
            (shared / name).mkdir()
            make(shared / name)
            (shared / f"{name}.made").touch()
    return shared / name


def clear_text_caches() -> None:
    """Drops everything but the language model, as in a new process."""
    for kind in [kind for kind in RESOURCES._kept if kind != "language model"]:
        del RESOURCES._kept[kind]


def words(file: str | None) -> tuple[str, ...]:
    """The overrides of the tiny model on this text, or of the synthetic model without one."""
    model = (
        ("model=synthetic",) if file is None else ("model=tiny", "text=files", f"text.glob={file}", "text.held_out=0.2")
    )
    return (*model, *SIZES)


def command(file: str, *more: str) -> list[str]:
    """The command line of a sweep; overrides in `more` replace those of `words`."""
    known = {word.split("=")[0] for word in more}
    return [sys.executable, str(ROOT / "train.py"), "-m", *(w for w in words(file) if w.split("=")[0] not in known), *more]


def weights(folder: Path) -> dict[str, bytes]:
    """The weights files of all SAEs of a sweep, by path."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("sae_weights.safetensors")}


def results(folder: Path) -> dict[str, bytes]:
    """The result files of every SAE, by path; the training curve without its tokens per second."""
    found = {}
    for file in sorted((folder / "outputs").rglob("*")):
        if file.name in RESULT_FILES:
            content = file.read_bytes()
            if file.name == "metrics.csv":
                content = b"\n".join(line.rpartition(b",")[0] for line in content.splitlines())
            found[str(file.relative_to(folder))] = content
    return found


def job(file: str | None, *more: str) -> dict:
    return OmegaConf.to_container(composed(*words(file), *more, always=()), resolve=True)


@lru_cache(maxsize=1)
def tiny() -> LanguageModel:
    return models.load(OmegaConf.to_container(OmegaConf.load(CONF / "model/tiny.yaml")))


def untrained(jobs: list[dict], folders: list[Path] | None = None, **more) -> tuple[SAESweep, object, object]:
    """The module, stream and inputs of a group as `train_group` makes them, new or from their checkpoints."""
    trained_on = inputs_of(jobs[0], [point_of(job) for job in jobs])
    (cohort,) = cohorts(folders) if folders else [Cohort(0, list(range(len(jobs))), [None] * len(jobs))]
    local_group = group_setup.LocalGroup(jobs, folders or [], jobs[0], RESOURCES)
    module, stream = group_setup.prepared(local_group, trained_on, cohort, **({"progress": lambda module: None} | more))
    return module, stream, trained_on


def trained(jobs: list[dict], folder: Path, **more) -> SAESweep:
    """Trains a group to its end, or until something raises; the same call resumes from the checkpoints."""
    folders = [folder / str(i) for i in range(len(jobs))]
    module, stream, _ = untrained(jobs, folders, **more)
    run_fit(module, stream, jobs, folders)
    return module


class Killed(RuntimeError):
    pass


class KillAfter:
    """For `progress`."""

    def __init__(self, tokens: int):
        self.tokens = tokens

    def __call__(self, module: SAESweep) -> None:
        if module.tokens >= self.tokens:
            raise Killed


def run_fit(module: SAESweep, stream: object, jobs: list[dict], folders: list[Path]) -> None:
    fit(module, stream, group_setup.logger_of(group_setup.LocalGroup(jobs, folders, jobs[0], RESOURCES)), jobs[0], folders,
        determined_by(jobs[0], RESOURCES))
