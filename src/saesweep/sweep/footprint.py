"""Memory and disk that a group takes, counted before it begins.

    while a window is read   the SAEs; the window twice while it is put together, or once and a forward pass
    in a step                the SAEs, a window, and the largest step: gradients, lists, dense latents while L0 is high
    at calibration           the SAEs, and the held-out rows of all hook points
    in the evaluation        the SAEs, and a pass with predictions or dense latents

each beside the language model and, on a CPU, the process itself and the blocks of a pool of text, twice while they are
shuffled. An SAE is its weights, both moments of Adam, in fp32, and its counters; on a GPU also W_enc in bf16
(arch/ops/rounded.py). On a GPU the host holds the language model while it is loaded, and the text and an SAE while its
checkpoint is written.
"""
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from saesweep.config.instantiate import locate
from saesweep.config.settings import Settings, device_of, unique_tokens
from saesweep.data.micro_batches import tokens_wanted
from saesweep.lm.tokenizer import Tokenizer
from saesweep.storage import checkpoints
from saesweep.sweep.engines.worker import devices, world_size
from saesweep.training.build import build

Parts = dict[str, int]  # bytes by what holds them
LOWER = {  # what to change where a part does not fit
    "text": "lower activations.documents_per_pool",
    "language model": "write model.dtype=bfloat16, or a smaller model", "window": "lower activations.window",
    "forward pass": "lower activations.forward_tokens", "statistics": "lower activations.statistics",
    "drawing": "lower activations.window", "step": "lower batch_tokens or width",
    "held-out rows": "lower evaluation.tokens and evaluation.calibration_tokens",
    "results": "make room", "checkpoints": "make room, or set name to a sweep on another disk",
    "activations": "make room, or set cache.folder to another disk",
    "pass with predictions": "lower evaluation.forward_tokens", "dense latents": "lower width",
}


class Measured(NamedTuple):
    """Bytes, from the probe."""

    process: int  # of this process, without a language model
    model: int  # its parameters
    pool: int  # the blocks of a pool of documents
    forward: int  # of a forward pass up to the last hook point; of a known dictionary, what drawing a window takes beside it
    row: int  # of all hook points
    statistics: int
    steps: Sequence[int]  # of each SAE
    rows_normalised: int  # a held-out row, while an SAE is calibrated
    predicting: int  # of a forward pass with predictions; of a known dictionary, the rows of the evaluation
    dense: int  # latents of the evaluation


class Place(NamedTuple):
    """Host or device: what it holds, by phase, and how much memory it has."""

    name: str
    phases: Mapping[str, Parts]
    there: int

    @property
    def peak(self) -> tuple[str, Parts]:
        return max(self.phases.items(), key=lambda phase: sum(phase[1].values()))

    def problem(self, count: int) -> str | None:
        """What to change where the peak is more than there is; count: SAEs of the group."""
        phase, parts = self.peak
        over = sum(parts.values()) - self.there
        if over <= 0:
            return None
        largest = max((part for part in parts if part != "process"), key=lambda part: parts[part])
        if largest != "SAEs":
            return f"{phase} it takes more {self.name} than there is: {LOWER[largest]}".lstrip()
        fit = max(0, parts["SAEs"] - over) * count // parts["SAEs"]
        return (f"about {fit} of the {count} SAEs fit at a time: sweep fewer values in a command, or give them more devices "
                "with trainer=sweep_parallel")


def sae_bytes(job: Settings, d_in: int, d_out: int | None = None) -> tuple[int, int]:
    """Number of parameters of an SAE, and bytes of its weights, moments and counters."""
    with torch.device("meta"):
        sae = build(job, d_in, d_out)
    params = sum(p.numel() for p in sae.parameters())
    width = 8 if job["trainer"]["precision"] == "64-true" else 4
    copy = 2 * sae.W_enc_T.numel() + 4 * sae.d_sae if device_of(job).type == "cuda" else 0
    return params, 3 * width * params + copy + sum(buffer.nbytes for buffer in sae.buffers())


def places(jobs: Sequence[Settings], saes: Sequence[int], tokenizer: Tokenizer | None, found: Measured) -> list[Place]:
    """saes: the bytes of each. Of several devices, the one that holds most."""
    job = jobs[0]
    shares = assigned([one["width"] for one in jobs], world_size(job["trainer"])) if _own_saes(job) else [range(len(jobs))]
    on_gpu, here = device_of(job).type == "cuda", devices(job["trainer"])
    held = found._replace(pool=0) if on_gpu else found
    phases = _phases(job, max(sum(saes[i] for i in share) for share in shares), max(found.steps), tokenizer, held)
    if on_gpu:
        host = {"while the language model is loaded": {"process": found.process, "language model": found.model},
                "while a checkpoint is written": {"process": found.process, "text": found.pool, "SAEs": max(saes)}}
        return [Place("GPU", phases, memory_there(job)), Place("host", _times(here, host), host_memory())]
    return [Place("memory", _times(here, {name: {"process": found.process} | parts for name, parts in phases.items()}),
                  host_memory())]


def _phases(job: Settings, saes: int, step: int, tokenizer: Tokenizer | None, found: Measured) -> dict[str, Parts]:
    tokens, activations = unique_tokens(job), job["activations"]
    rows = min(tokens, activations["window"])
    if tokenizer is not None:
        rows = tokens_wanted(tokens, job["context"], activations["window"], tokenizer)
    shuffled = {"text": 2 * found.pool}
    window, ahead = rows * found.row, rows * found.row if job["read_ahead"] else 0
    model, several = {"language model": found.model, "text": found.pool}, {"SAEs": saes} if rows < tokens else {}
    reading = {"window": 2 * window + ahead}
    if found.forward > window:
        reading = {"window": window + ahead, "forward pass" if tokenizer else "drawing": found.forward}
    step *= 2 if job.get("cuda_graphs") else 1  # graphs have memory of their own
    held_out = job["evaluation"]["calibration_tokens"] * (2 * found.row + found.rows_normalised)
    evaluation = {"pass with predictions" if tokenizer else "held-out rows": found.predicting}
    if found.dense > found.predicting or not tokenizer:
        evaluation = {"dense latents": found.dense} | ({} if tokenizer else evaluation)
    return {
        "while the first window is read": {**model, **shuffled, "window": 2 * window, "statistics": found.statistics},
        "while a window is read": {**model, **shuffled, **several, **reading},
        "in a step": {**model, "SAEs": saes, "window": window + 2 * ahead, "step": step},
        "at calibration": {**model, "SAEs": saes, "held-out rows": held_out},
        "in the evaluation": {**model, "SAEs": saes, **evaluation},
    }


def _times(ranks: int, phases: Mapping[str, Parts]) -> dict[str, Parts]:
    return {name: {part: ranks * size for part, size in parts.items()} for name, parts in phases.items()}


def _own_saes(job: Settings) -> bool:
    """Whether each rank trains SAEs of its own."""
    return world_size(job["trainer"]) > 1 and not locate(job["trainer"]["strategy"]["_target_"], "").ranks_share_saes


def assigned(widths: Sequence[int], ranks: int) -> list[list[int]]:
    """The SAEs of each rank: the widest first, each to the rank with the smallest total width."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        min(shares, key=lambda share: sum(widths[j] for j in share)).append(i)
    return [sorted(share) for share in shares]


def disk(jobs: Sequence[Settings], folder: Path, params: Sequence[int], saes: Sequence[int], row: int, seconds: float) -> Place:
    """Results stay; of checkpoints, an SAE keeps the last two until it is finished, and one more while it is written."""
    job = jobs[0]
    written = max(job["tokens"] / job["save_tokens"], seconds / 60 / job["save_minutes"])
    parts = {"results": 4 * sum(params), "checkpoints": min(checkpoints.KEPT, max(1, int(written))) * sum(saes) + max(saes)}
    if job["cache"]["folder"]:
        tokens = unique_tokens(job) + job["evaluation"]["tokens"] + job["evaluation"]["calibration_tokens"]
        parts["activations"] = tokens * row
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return Place("disk", {"": parts}, shutil.disk_usage(existing).free)


def memory_there(job: Settings) -> int:
    """Bytes of the device of a job, without what other processes have of a GPU."""
    if device_of(job).type == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return host_memory()


def host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def process_bytes(model: int) -> int:
    """Memory of this process without the `model` bytes of a language model."""
    return resident_bytes() - model


def resident_bytes() -> int:
    """Memory of this process: at present on Linux, elsewhere the most that it has had."""
    if sys.platform.startswith("linux"):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac
