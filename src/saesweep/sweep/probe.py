"""The probe behind the plan: what a group would take, and whether its architectures keep their contract."""
import itertools
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import Settings, device_of, has_lm
from saesweep.data.disk_cache import CachedSource
from saesweep.data.forward_size import quickest, timed_forward
from saesweep.data.held_out import EVALUATION
from saesweep.data.micro_batches import fill
from saesweep.data.normalisation import Statistics
from saesweep.data.resources import Resources
from saesweep.data.scored import scored
from saesweep.data.text import pieces, tokenized
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import CrossEntropy
from saesweep.evaluation.splicing import Batch
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.console import working
from saesweep.sweep import compilation, inputs
from saesweep.sweep.inputs import KnownDictionary, ReadText, point_of
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.contract import require_contract
from saesweep.training.optimizer import UnitRowAdam, parameter_group

log = logging.getLogger(__name__)
SAMPLE = 1000  # documents from which the share of padding is estimated


def estimate(jobs: Sequence[Settings], resources: Resources) -> dict[str, Any]:
    """Sizes, memory and seconds of a group, from a few forwards of the language model and a few steps of each kind of SAE.

    Raises UsageError for a text, a hook point, a size or an architecture that cannot be trained.
    """
    inputs.require_device(jobs[0])
    name = jobs[0]["model"]["name"]
    if has_lm(jobs[0]):
        with working(f"reading the text, {jobs[0]['text']['name']}"):
            resources.require_long_enough_text(jobs[0])  # before the weights are loaded
    with working(f"loading {name}, and timing a forward of it"):
        rows, position_seconds = _probe_rows(jobs, resources)
    _require_usable(jobs, rows)
    for job in jobs:
        _require_memory(job, rows[point_of(job)].shape[1])
    harvest_seconds = position_seconds / (_fill(jobs[0], list(map(point_of, jobs)), resources) if has_lm(jobs[0]) else 1.0)
    if compilation.is_running():
        with working("compiling the CPU kernels, once"):
            compilation.wait()
    sizes = [rows[point_of(job)].shape[1] for job in jobs]
    seconds: dict[tuple, float] = {}
    with working("timing a step of each kind of SAE"):
        for job, d_in in zip(jobs, sizes, strict=True):
            if _kind(job, d_in) not in seconds:
                seconds[_kind(job, d_in)] = _probe_step(job, rows[point_of(job)])
    per_token = harvest_seconds + sum(seconds[_kind(job, d_in)] for job, d_in in zip(jobs, sizes, strict=True))
    params = [_count(job, d_in) for job, d_in in zip(jobs, sizes, strict=True)]
    return {
        "d_in": sizes, "params": params, "optimizer_bytes": [8 * count for count in params],
        "seconds": jobs[0]["tokens"] * per_token + _evaluation_seconds(jobs, harvest_seconds, resources),
    }


def _kind(job: Settings, d_in: int) -> tuple:
    """SAEs of one kind take the same time per token."""
    return job["arch"]["name"], job["width"], job["sparsity"], job["dense"], d_in


def _fill(job: Settings, points: Sequence[HookPoint], resources: Resources) -> float:
    """The share of the language model's positions that hold ordinary tokens, on a sample of the text."""
    corpus, tokenizer = resources.require_long_enough_text(job)
    sample = itertools.islice(filter(None, corpus.one_pass("held_out")), SAMPLE)
    documents, forward_tokens = list(tokenized(sample, tokenizer)), resources.forward_tokens(job, points)

    def of(context: int) -> float:
        read = torch.stack([block for ids in documents for block in pieces(ids, tokenizer, context)])
        order = torch.randperm(len(read), generator=torch.Generator().manual_seed(0))
        return fill(read[order], tokenizer, forward_tokens)

    share, median = of(job["context"]), statistics.median_low(map(len, documents))
    shorter = 1 << median.bit_length()  # room for BOS
    if share < 0.5 and shorter < job["context"] and (time := share / of(shorter)) < 0.8:
        log.warning("text=%s: blocks of context=%d are %.0f%% full, documents have %d tokens in the median: context=%d would "
                    "read as much in %.0f%% of the time", corpus.name, job["context"], 100 * share, median, shorter, 100 * time)
    return share


def _evaluation_seconds(jobs: Sequence[Settings], harvest_seconds: float, resources: Resources) -> float:
    """The language model's part of evaluation: the activations, and a pass with logits per SAE, per ablation and one clean."""
    numbers = jobs[0]["evaluation"]
    seconds = (numbers["tokens"] + numbers["calibration_tokens"]) * harvest_seconds
    if not has_lm(jobs[0]) or numbers["lm_tokens"] == 0:
        return seconds
    lm, (_, tokenizer) = resources.language_model(jobs[0]), resources.text(jobs[0])
    wanted = scored(resources.held_out(jobs[0], EVALUATION, numbers["tokens"]), tokenizer, jobs[0])
    assert wanted is not None, "lm_tokens is above 0"
    parts = list(wanted.parts(numbers["forward_tokens"]))
    tokens, at = parts[len(parts) // 2]
    a_part, _ = quickest(lambda: Batch.of(tokens, at, lm).score(lm, CrossEntropy()))
    passes = 1 + 2 * len(set(map(point_of, jobs))) + len(jobs)
    return seconds + passes * a_part * len(parts)


def _probe_rows(jobs: Sequence[Settings], resources: Resources) -> tuple[dict[HookPoint, torch.Tensor], float]:
    """A few activation rows [tokens, d_in] per hook point, and the seconds of harvest per position."""
    job, points = jobs[0], list(dict.fromkeys(map(point_of, jobs)))
    if not has_lm(job):
        known = job["model"]["source"]["synthetic"]
        _require_room(f"model.source.synthetic.features={known['features']}", 4 * known["features"] * known["d_in"], job)
        source = KnownDictionary(job, points).source
        seconds, rows = quickest(lambda: source.window(4096))
        return rows, seconds / 4096
    source = ReadText(job, points, resources).source
    if isinstance(source, CachedSource) and source.holds_next():
        return source.window(4096), 0.0
    blocks = max(1, resources.forward_tokens(job, points) // 2 // job["context"])
    seconds, rows = timed_forward(resources.language_model(job), points, blocks, job["context"])
    return rows, seconds / (blocks * job["context"])


def _require_usable(jobs: Sequence[Settings], rows: Mapping[HookPoint, torch.Tensor]) -> None:
    """Raises UsageError, with the keys of the hook point, if its activations are not finite or do not vary."""
    for point, job in {point_of(job): job for job in jobs}.items():
        numbers = job["activations"]
        try:
            Statistics.of(rows[point], center=numbers["center"], max_norm=numbers["max_norm"], point=point)
        except UsageError as error:
            of_the_point = str(error).startswith("the activations")
            key = f"site={job['site']['name']} layer={job['layer']}: " if of_the_point else ""
            raise UsageError(f"{key}{error}") from error


def _require_memory(job: Settings, d_in: int) -> None:
    """Raises UsageError if the weights, gradients and Adam's two moments, or a batch of activations, exceed the memory."""
    _require_room(f"width={job['width']}", 4 * 4 * 2 * d_in * job["width"], job)
    _require_room(f"batch_tokens={job['batch_tokens']}", 4 * d_in * job["batch_tokens"], job)


def _require_room(what: str, needed: int, job: Settings) -> None:
    device = device_of(job)
    there = torch.cuda.mem_get_info()[1] if device.type == "cuda" else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise UsageError(f"{what}: takes {needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f} GB of memory here; lower it")


def _probe_step(job: Settings, x: torch.Tensor) -> float:
    """Seconds per token of forward, backward and update of one SAE, at its target L0."""
    x = (x.float() - x.float().mean(0))[: job["batch_tokens"]]
    x /= x.square().sum(1).mean().sqrt()
    try:
        sae = build(job, x.shape[1]).to(x.device)
        require_contract(sae, x[:64], job["arch"])
        return _step_seconds(sae, x, job["arch"]["optimizer"])
    except Exception as error:
        error.add_note(f"in a step of arch={job['arch']['name']} that the plan takes to measure its time")
        raise


def _step_seconds(sae: SparseAutoencoder, x: torch.Tensor, numbers: Mapping[str, Any]) -> float:
    if sae.thresholded:
        meet_l0_(sae, x)
    optimizer = UnitRowAdam([parameter_group(sae, numbers)])

    def step() -> None:
        sae.execution.deferred_gradients = []
        losses = sae.step(x, torch.tensor(0.0, device=x.device), 1.0).losses
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step_group(0, sae.execution.deferred_gradients)
        sae.constrain_()

    return quickest(step)[0] / len(x)


def _count(job: Settings, d_in: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(job, d_in).parameters())
