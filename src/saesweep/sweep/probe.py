"""The probe behind the plan: what a group would take, and whether its architectures keep their contract."""
from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning  # noqa: F401 a training has it in memory
import torch

import saesweep.sweep.wandb_summary  # noqa: F401 likewise, with pandas
from saesweep.config.settings import Settings, device_of, has_lm, own_activations, passes, unique_tokens
from saesweep.data.disk_cache import CachedSource
from saesweep.data.forward_size import forward_of, quickest, timed, timed_forward
from saesweep.data.held_out import EVALUATION
from saesweep.data.micro_batches import by_length, ordinary_positions, positions
from saesweep.data.normalisation import Statistics
from saesweep.data.resources import Resources
from saesweep.data.scored import Scored, has_loss, no_loss, scored
from saesweep.data.text import pieces, tokenized
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import CrossEntropy
from saesweep.evaluation.splicing import Batch
from saesweep.lm import models
from saesweep.lm.hooks import HookPoint, Rows, blocks_before, recorded, replace_output, tensors_of
from saesweep.lm.tokenizer import Tokenizer
from saesweep.runtime.allocations import peak_bytes, with_peak_bytes
from saesweep.runtime.console import working
from saesweep.sweep import compilation, footprint, inputs
from saesweep.sweep.inputs import KnownDictionary, OwnActivations, ReadText, point_of
from saesweep.sweep.probe_step import Probed, probe_step
from saesweep.training.initial import initial

SAMPLE = 1000  # documents from which the share of padding is estimated
DRAWN = 4096  # rows of a cache or a known dictionary
PREDICTED = 512  # positions, at least, of the pass whose predictions are timed


def estimate(jobs: Sequence[Settings], resources: Resources, folder: Path = Path()) -> dict[str, Any]:
    """Sizes, memory, disk and seconds of a group, from a few forwards of the language model and a few steps of each kind of
    SAE. folder: of the sweep.

    Raises UsageError for a text, a hook point, a size or an architecture that cannot be trained.
    """
    job, points = jobs[0], list(map(point_of, jobs))
    tokenizer = _require_inputs(jobs, points, resources)
    with working(f"loading {job['model']['name']}, and timing a forward of it"):
        read = _probe_rows(jobs, resources)
    statistics, statistics_bytes = _require_usable(jobs, read.rows)
    for one, point in zip(jobs, points, strict=True):
        initial(one, len(statistics[point].mean))
        _require_memory(one, *statistics[point].sizes)
    fill, pool = _fill(job, points, resources) if has_lm(job) else (1.0, 0)
    harvest_seconds = read.seconds / fill
    sizes = [statistics[point].sizes for point in points]
    steps = _probed_steps(jobs, points, read.rows, statistics)
    evaluation_seconds, predicting = _evaluation(jobs, harvest_seconds, resources)
    seconds = job["tokens"] * (harvest_seconds / passes(job) + sum(step.seconds for step in steps)) + evaluation_seconds
    params, saes = zip(*(footprint.sae_bytes(one, *size) for one, size in zip(jobs, sizes, strict=True)), strict=True)
    latents = [step.latents for step in steps if step.latents is not None]
    row = sum(x.shape[1] * x.element_size() for x in read.rows.values())
    model = _model_bytes(job, read, resources)
    found = footprint.Measured(
        process=footprint.process_bytes(model if device_of(job).type == "cpu" else 0),
        model=model, pool=pool if read.seconds else 0, forward=read.forward, row=row, statistics=statistics_bytes,
        steps=[step.step for step in steps], rows_normalised=3 * 4 * max(d_in for d_in, _ in sizes),
        predicting=predicting or job["evaluation"]["tokens"] * read.drawing, dense=max(latents, default=0),
    )
    places = [*footprint.places(jobs, saes, tokenizer, found), footprint.disk(jobs, folder, params, saes, row, seconds)]
    return {"d_in": [d_in for d_in, _ in sizes], "params": params, "sae_bytes": saes, "seconds": seconds, "places": places,
            "unmeasured": len(steps) - len(latents), "no_loss": no_loss(job, tokenizer) if tokenizer else None}


def _require_inputs(jobs: Sequence[Settings], points: Sequence[HookPoint], resources: Resources) -> Tokenizer | None:
    """All that can be refused before weights are loaded."""
    job = jobs[0]
    inputs.require_device(job)
    for one in jobs:
        initial(one)
    if not has_lm(job):
        return None
    with working(f"reading the text, {job['text']['name']}"):
        _, tokenizer = resources.require_long_enough_text(job)
    models.require_modules(job["model"], points)
    return tokenizer


def _probed_steps(
    jobs: Sequence[Settings], points: Sequence[HookPoint], rows: Rows, statistics: Mapping[HookPoint, Statistics]
) -> list[Probed]:
    """Of each SAE; those of one kind are timed once."""
    if compilation.is_running():
        with working("compiling the CPU kernels, once"):
            compilation.wait()
    kinds = [_kind(job, statistics[point].sizes) for job, point in zip(jobs, points, strict=True)]
    probed = dict[tuple, Probed]()
    with working("timing a step of each kind of SAE"):
        for kind, job, point in zip(kinds, jobs, points, strict=True):
            if kind not in probed:
                probed[kind] = probe_step(job, rows, statistics[point], point)
    return [probed[kind] for kind in kinds]


def _model_bytes(job: Settings, read: Read, resources: Resources) -> int:
    """Of the language model, which is not loaded where all activations are in the cache and no loss is measured."""
    if not has_lm(job) or (read.seconds == 0 and not has_loss(job, resources.text(job)[1])):
        return 0
    module = resources.language_model(job).module
    return sum(tensor.nbytes for tensor in itertools.chain(module.parameters(), module.buffers()))


def _kind(job: Settings, sizes: tuple[int, int | None]) -> tuple:
    """SAEs of one kind take the same time per token."""
    return job["arch"]["name"], job["width"], job["sparsity"], job["dense"], job.get("skip"), sizes


def _fill(job: Settings, points: Sequence[HookPoint], resources: Resources) -> tuple[float, int]:
    """The share of the language model's positions that hold ordinary tokens, in windows of a sample of the text; and the bytes
    of a pool's blocks."""
    corpus, tokenizer = resources.require_long_enough_text(job)
    sample = itertools.islice(filter(None, corpus.one_pass("held_out")), SAMPLE)
    documents, forward_tokens = tokenized(sample, tokenizer), resources.forward_tokens(job, tensors_of(points))
    found = [list(pieces(ids, tokenizer, job["context"])) for ids in documents]
    read = torch.stack(list(itertools.chain(*found)))
    pool = read.nbytes * job["activations"]["documents_per_pool"] // len(found)
    read = read[torch.randperm(len(read), generator=torch.Generator().manual_seed(0))]
    ordinary = int(ordinary_positions(read, tokenizer).sum())
    windows = read.split(max(1, len(read) * job["activations"]["window"] // ordinary))
    return ordinary / sum(positions(window[by_length(window, forward_tokens)], forward_tokens) for window in windows), pool


def _evaluation(jobs: Sequence[Settings], harvest_seconds: float, resources: Resources) -> tuple[float, int]:
    """The language model's part of evaluation: seconds for the activations, and for a pass with predictions per SAE, per
    ablation and one clean; and the bytes that a pass takes. From a pass over a few blocks of theirs."""
    numbers = jobs[0]["evaluation"]
    seconds = (numbers["tokens"] + numbers["calibration_tokens"]) * harvest_seconds
    if not has_lm(jobs[0]) or not has_loss(jobs[0], tokenizer := resources.text(jobs[0])[1]):
        return seconds, 0
    lm = resources.language_model(jobs[0])
    wanted = scored(resources.held_out(jobs[0], EVALUATION, numbers["tokens"]), tokenizer, jobs[0])
    assert wanted is not None, "there is a loss"
    size = max(PREDICTED, numbers["forward_tokens"] // 4)
    every = min(len(wanted.tokens), math.ceil(wanted.tokens.numel() / size))
    sample = Scored(*(of_blocks[every // 2 :: every] for of_blocks in wanted))
    batch, points = Batch.of(*next(sample.parts(size)), lm), set(map(point_of, jobs))

    def a_pass() -> None:
        with recorded(blocks_before(lm.module, point) for point in points):
            batch.score(lm, CrossEntropy())

    held, (once, _) = peak_bytes(a_pass), timed(a_pass)
    part, whole = batch.tokens.numel(), positions(wanted.tokens, numbers["forward_tokens"])
    bytes_held = held * math.ceil(numbers["forward_tokens"] / part)
    return seconds + (1 + 2 * len(points) + len(jobs)) * once * whole / part, bytes_held


class Read(NamedTuple):
    """A few activation rows [tokens, d_in] per hook point, and what they cost."""

    rows: Rows
    seconds: float  # per position of the language model
    forward: int  # bytes: see footprint.Measured
    drawing: int = 0  # bytes per row of a known dictionary


def _probe_rows(jobs: Sequence[Settings], resources: Resources) -> Read:
    job, whole = jobs[0], list(dict.fromkeys(map(point_of, jobs)))
    points = tensors_of(whole)
    if own_activations(job) is not None:
        return _taken(job, points, resources)
    if not has_lm(job):
        return _drawn(job, points)
    source = ReadText(job, points, resources).source
    if isinstance(source, CachedSource) and source.holds_next():
        return Read(source.window(DRAWN), 0.0, 0)
    lm, most, context = resources.language_model(job), resources.forward_tokens(job, points), job["context"]
    for point in whole:
        with replace_output(lm.module, point, lambda x, y: y):  # raises UsageError where the target comes before
            forward_of(lm, [point.output], 1, context)
    blocks = max(1, most // 2 // context)
    forward = peak_bytes(lambda: forward_of(lm, points, 1, context)) * max(1, most // context)
    seconds, rows = timed_forward(lm, points, blocks, context)
    return Read(rows, seconds / (blocks * context), forward)


def _drawn(job: Settings, points: Sequence[HookPoint]) -> Read:
    known = job["model"]["source"]["synthetic"]
    _require_room(f"model.source.synthetic.features={known['features']}", 4 * known["features"] * known["d_in"], job)
    source = KnownDictionary(job, points).source
    seconds, rows = quickest(lambda: source.window(DRAWN))
    drawing = peak_bytes(lambda: source.window(DRAWN)) // DRAWN
    window = min(unique_tokens(job), job["activations"]["window"])
    return Read(rows, seconds / DRAWN, window * (drawing - 4 * known["d_in"]), drawing)


def _taken(job: Settings, points: Sequence[HookPoint], resources: Resources) -> Read:
    """Of activations that the user brings."""
    source = OwnActivations(job, points, resources).source
    start = time.perf_counter()
    (x,) = (rows := source.window(DRAWN)).values()
    return Read(rows, (time.perf_counter() - start) / len(x), 0, 2 * x.shape[1] * x.element_size())


def _require_usable(
    jobs: Sequence[Settings], rows: Mapping[HookPoint, torch.Tensor]
) -> tuple[dict[HookPoint, Statistics], int]:
    """Raises UsageError, with the keys of the hook point, if its activations are not finite or do not vary. Returns their
    statistics, and the bytes that measuring them takes."""
    found, most = dict[HookPoint, Statistics](), 0
    for point, job in {tensor: one for one in jobs for tensor in point_of(one).tensors}.items():
        numbers, x = job["activations"], rows[point]
        measure = partial(Statistics.of, x, center=numbers["center"], max_norm=numbers["max_norm"], point=point)
        try:
            found[point], held = with_peak_bytes(measure)
        except UsageError as error:
            of_the_point = str(error).startswith("the activations")
            key = f"site={job['site']['name']} layer={job['layer']}: " if of_the_point else ""
            raise UsageError(f"{key}{error}") from error
        most = max(most, held * min(numbers["statistics"], numbers["window"], unique_tokens(job)) // len(x))
    for point in map(point_of, jobs):
        if point.target is not None:
            found[point] = replace(found[point.tensors[0]], target=found[point.target])
    return found, most


def _require_memory(job: Settings, d_in: int, d_out: int | None) -> None:
    """Raises UsageError if the weights, gradients and Adam's two moments, or a batch of activations, exceed the memory."""
    _require_room(f"width={job['width']}", 4 * 4 * (d_in + (d_out or d_in)) * job["width"], job)
    _require_room(f"batch_tokens={job['batch_tokens']}", 4 * (d_in + (d_out or 0)) * job["batch_tokens"], job)


def _require_room(what: str, needed: int, job: Settings) -> None:
    there = footprint.memory_there(job)
    if needed > there:
        raise UsageError(f"{what}: takes {needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f} GB of memory here; lower it")
