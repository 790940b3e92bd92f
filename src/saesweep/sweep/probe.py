"""What a group would take: the probe behind the plan."""
from __future__ import annotations

import itertools
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from saesweep.arch.base import SparseAutoencoder
from saesweep.data.disk_cache import CachedSource
from saesweep.data.harvest import fill, timed_forward
from saesweep.data.normalisation import Statistics
from saesweep.data.text import pieces, tokenized
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.results import sae_format
from saesweep.runtime.console import Line
from saesweep.runtime.timing import quickest
from saesweep.sweep import compilation, inputs
from saesweep.sweep.inputs import KnownDictionary, ReadText, Settings, enough_text, has_lm, language_model, point_of
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.optimizer import UnitRowAdam, parameter_group

log = logging.getLogger(__name__)
SAMPLE = 1000  # documents of which the fill of the blocks is measured


def estimate(jobs: Sequence[Settings]) -> dict[str, Any]:
    """What a group will take, from a few forwards of the language model and a few steps of each kind of SAE."""
    inputs.require_device(jobs[0])
    say = Line(every=0.0)
    if has_lm(jobs[0]):
        say(f"reading the text, {jobs[0]['text']['name']}")
        enough_text(jobs[0])  # before the weights
    say(f"timing a forward of {jobs[0]['model']['name']}")
    rows, position_seconds = _probe_rows(jobs)
    _require_usable(jobs, rows)
    for job in jobs:
        _require_memory(job, rows[point_of(job)].shape[1])
    share = _fill(jobs[0], list(map(point_of, jobs))) if has_lm(jobs[0]) else 1.0
    harvest_seconds = position_seconds / share
    say("timing a step of each kind of SAE")
    sizes = [rows[point_of(job)].shape[1] for job in jobs]
    seconds: dict[tuple, float] = {}
    for job, d_in in zip(jobs, sizes, strict=True):
        if _kind(job, d_in) not in seconds:
            seconds[_kind(job, d_in)] = _probe_step(job, rows[point_of(job)])
    per_token = harvest_seconds + sum(seconds[_kind(job, d_in)] for job, d_in in zip(jobs, sizes, strict=True))
    params = [_count(job, d_in) for job, d_in in zip(jobs, sizes, strict=True)]
    return {
        "d_in": sizes, "params": params, "optimizer_bytes": [8 * count for count in params],
        "seconds": jobs[0]["tokens"] * per_token + _evaluation_seconds(jobs, harvest_seconds, share),
    }


def _kind(job: Settings, d_in: int) -> tuple:
    """SAEs of one kind take the same time."""
    return job["arch"]["name"], job["width"], job["sparsity"], job["dense"], d_in


def _fill(job: Settings, points: Sequence[HookPoint]) -> float:
    """The share of the positions that the language model reads which hold ordinary tokens, of a sample of the text."""
    corpus, tokenizer = enough_text(job)
    sample = itertools.islice(filter(None, corpus.one_pass("held_out")), SAMPLE)
    documents, forward_tokens = list(tokenized(sample, tokenizer)), inputs.forward_tokens(job, points)

    def of(context: int) -> float:
        read = torch.stack([block for ids in documents for block in pieces(ids, tokenizer, context)])
        order = torch.randperm(len(read), generator=torch.Generator().manual_seed(0))
        return fill(read[order], tokenizer, forward_tokens)

    share, median = of(job["context"]), statistics.median_low(map(len, documents))
    shorter = 1 << median.bit_length()  # holds BOS too
    if share < 0.5 and shorter < job["context"] and (time := share / of(shorter)) < 0.8:
        log.warning("text=%s: blocks of context=%d are %.0f%% full, documents have %d tokens in the median: context=%d would "
                    "read as much in %.0f%% of the time", corpus.name, job["context"], 100 * share, median, shorter, 100 * time)
    return share


def _evaluation_seconds(jobs: Sequence[Settings], harvest_seconds: float, share: float) -> float:
    """The language model's part of it: the activations, and a pass with logits per SAE, per ablation and one clean."""
    numbers = jobs[0]["evaluation"]
    seconds = (numbers["tokens"] + numbers["calibration_tokens"]) * harvest_seconds
    if not has_lm(jobs[0]) or numbers["lm_tokens"] == 0:
        return seconds
    lm = language_model(jobs[0])
    tokens = torch.zeros(1, jobs[0]["context"], dtype=torch.long, device=next(lm.module.parameters()).device)
    with torch.no_grad():
        a_pass, _ = quickest(lambda: lm.module(input_ids=tokens, use_cache=False).logits)
    passes = 1 + 2 * len(set(map(point_of, jobs))) + len(jobs)
    return seconds + passes * a_pass * numbers["lm_tokens"] / share / tokens.numel()


def _probe_rows(jobs: Sequence[Settings]) -> tuple[dict[HookPoint, torch.Tensor], float]:
    """A few activation rows per hook point, and the seconds that a position takes to harvest."""
    job, points = jobs[0], list(dict.fromkeys(map(point_of, jobs)))
    if not has_lm(job):
        known = job["model"]["source"]["synthetic"]
        _require_room(f"model.source.synthetic.features={known['features']}", 4 * known["features"] * known["d_in"], job)
        source = KnownDictionary(job, points).source
        seconds, rows = quickest(lambda: source.window(4096))
        return rows, seconds / 4096
    source = ReadText(job, points).source
    if isinstance(source, CachedSource) and source.holds_next():
        return source.window(4096), 0.0
    blocks = max(1, inputs.forward_tokens(job, points) // 2 // job["context"])
    seconds, rows = timed_forward(language_model(job), points, blocks, job["context"])
    return rows, seconds / (blocks * job["context"])


def _require_usable(jobs: Sequence[Settings], rows: Mapping[HookPoint, torch.Tensor]) -> None:
    """Of all places, before a step is taken on one of them."""
    for point, job in {point_of(job): job for job in jobs}.items():
        numbers = job["activations"]
        try:
            Statistics.of(rows[point], center=numbers["center"], max_norm=numbers["max_norm"], point=point)
        except UsageError as error:
            of_the_place = str(error).startswith("the activations")
            key = f"site={job['site']['name']} layer={job['layer']}: " if of_the_place else ""
            raise UsageError(f"{key}{error}") from error


def _require_memory(job: Settings, d_in: int) -> None:
    """An SAE is its weights, their gradients and Adam's two moments; a step holds a batch of activations."""
    _require_room(f"width={job['width']}", 4 * 4 * 2 * d_in * job["width"], job)
    _require_room(f"batch_tokens={job['batch_tokens']}", 4 * d_in * job["batch_tokens"], job)


def _require_room(what: str, needed: int, job: Settings) -> None:
    device = inputs.device_of(job)
    there = torch.cuda.mem_get_info()[1] if device.type == "cuda" else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise UsageError(f"{what}: takes {needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f} GB of memory here; lower it")


def _probe_step(job: Settings, x: torch.Tensor) -> float:
    """Seconds per token of forward, backward and update of one SAE, at its target L0."""
    compilation.wait()
    x = (x.float() - x.float().mean(0))[: job["batch_tokens"]]
    x /= x.square().sum(1).mean().sqrt()
    try:
        sae = build(job, x.shape[1]).to(x.device)
        _require_consistent(sae, x[:64], job["arch"]["name"])
        _require_control(sae, x[:64], job["arch"])
        return _step_seconds(sae, x, job["arch"]["optimizer"])
    except Exception as error:
        error.add_note(f"in a step of arch={job['arch']['name']} that the plan takes to measure its time")
        raise


@torch.no_grad()
def _require_consistent(sae: SparseAutoencoder, x: torch.Tensor, name: str) -> None:
    """What an architecture of one's own may have forgotten, which would end in wrong numbers without a word."""
    sae.b_enc += 1e-3 * torch.randn(sae.b_enc.shape, generator=torch.Generator().manual_seed(0)).to(x)  # no ties (d_in=1)
    f = sae.activate((x - sae.b_dec) @ sae.W_enc + sae.b_enc)
    tensors = {key: tensor.to(x) for key, tensor in sae.exported().items()}
    read = sae_format.encoded(sae.saved_as, tensors, sae.sparsity, x)
    if read is not None and not _mostly(read, f):
        raise UsageError(f"arch={name}: saved_as={sae.saved_as}, but SAELens' {sae.saved_as} encodes otherwise than its "
                         f"`activate`; write saved_as = \"{name}\", which SAELens refuses to load")
    if sae.thresholded and not _mostly(sae.margin(x) > 0, f > 0):
        raise UsageError(f"arch={name}: its latents are active elsewhere than where `margin` is above zero; L0 is calibrated "
                         "by `margin` and `raise_thresholds_`: write both to fit `activate`")


def _require_control(sae: SparseAutoencoder, x: torch.Tensor, arch: Mapping[str, Any]) -> None:
    if arch["control"] is None and "sparsity" in sae.step(x, x.new_zeros(()), 1.0).losses:
        raise UsageError(f"arch.control=null: {arch['name']} has a sparsity loss, whose coefficient would stay 0; give "
                         "the numbers that move it, as conf/arch/jumprelu.yaml does")


def _mostly(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, but for few of the entries that are not zero: those on the edge of it."""
    other = ~torch.isclose(a.float(), b.float(), rtol=1e-3, atol=1e-5)
    return bool(other.sum() <= 0.02 * (b != 0).sum())


def _step_seconds(sae: SparseAutoencoder, x: torch.Tensor, numbers: Mapping[str, Any]) -> float:
    if sae.thresholded:
        meet_l0_(sae, x)
    optimizer = UnitRowAdam([parameter_group(sae, numbers)])

    def step() -> None:
        sae.execution.deferred_gradients = []
        sum(sae.step(x, torch.tensor(0.0, device=x.device), 1.0).losses.values()).backward()
        optimizer.step_group(0, sae.execution.deferred_gradients)
        sae.constrain_()

    return quickest(step)[0] / len(x)


def _count(job: Settings, d_in: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(job, d_in).parameters())
