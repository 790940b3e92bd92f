"""The activations of one hook point that all its SAEs are measured on: of a language model, or of a known dictionary."""
from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saesweep.config.settings import Settings, device_of, has_lm
from saesweep.data.harvest import harvest
from saesweep.data.held_out import CALIBRATION, EVALUATION, HeldOut
from saesweep.data.micro_batches import micro_batches
from saesweep.data.normalisation import Statistics, require_finite
from saesweep.data.resources import Resources
from saesweep.data.scored import scored
from saesweep.data.synthetic import SyntheticSource
from saesweep.errors import UsageError
from saesweep.evaluation.recovery import DOCUMENT
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.console import ProgressLine
from saesweep.runtime.rng import SYNTHETIC_CALIBRATION, SYNTHETIC_EVALUATION, generator
from saesweep.study.ablation.splices import Splices


class Part(NamedTuple):
    """Raw activations of ordinary tokens, on the CPU, and the document of each."""

    x: Float[Tensor, "tokens d_in"]
    documents: Int64[Tensor, " tokens"]

    def without_sinks(self, statistics: Statistics) -> Part:
        """Raises UsageError where no token is left."""
        kept = statistics.ordinary(self.x)
        if not bool(kept.any()):
            raise UsageError(f"activations.max_norm: all {len(kept):,} held-out tokens are sinks by it")
        return self if bool(kept.all()) else Part(self.x[kept], self.documents[kept])


class Rows(NamedTuple):
    calibration: Part
    evaluation: Part
    splices: Splices | None  # None: delta loss is not measured


def read(job: Settings, point: HookPoint, resources: Resources) -> Rows:
    """Raises UsageError where there is too little held-out text."""
    if not has_lm(job):
        return _of_dictionary(job, point)
    numbers, show = job["evaluation"], ProgressLine()
    held_out = {purpose: resources.held_out(job, purpose, numbers[key]) for purpose, key in (
        (CALIBRATION, "calibration_tokens"), (EVALUATION, "tokens"))}
    calibration, evaluation = (_of_text(job, point, one, resources, show) for one in held_out.values())
    predictions = scored(held_out[EVALUATION], resources.text(job)[1], job)
    if predictions is None:
        return Rows(calibration, evaluation, None)
    show(f"{point}: the language model's own loss")
    splices = Splices(resources.language_model(job), point, predictions, numbers["forward_tokens"])
    return Rows(calibration, evaluation, splices)


@torch.no_grad()
def _of_text(job: Settings, point: HookPoint, held_out: HeldOut, resources: Resources, show: ProgressLine) -> Part:
    lm, found, done = resources.language_model(job), list[Tensor](), 0
    for part in micro_batches(held_out.tokens, job["evaluation"]["forward_tokens"]):
        show(f"{point}: {done:,} of {held_out.tokens.numel():,} held-out tokens read")
        found.append(harvest(lm, [point], part)[point].cpu())
        done += part.numel()
    x = torch.cat(found)
    require_finite(x, point)
    return Part(x, held_out.of_tokens)


def _of_dictionary(job: Settings, point: HookPoint) -> Rows:
    """DOCUMENT independent draws are a document, as in the evaluation."""
    source = SyntheticSource(point, **job["model"]["source"]["synthetic"], window=DOCUMENT, stream_seed=0,
                             device=device_of(job))

    def drawn(tokens: int, purpose: int) -> Part:
        x = source.draw(tokens, generator(source.seed, purpose)).cpu()
        return Part(x, torch.arange(tokens) // DOCUMENT)

    numbers = job["evaluation"]
    calibration = drawn(numbers["calibration_tokens"], SYNTHETIC_CALIBRATION)
    return Rows(calibration, drawn(numbers["tokens"], SYNTHETIC_EVALUATION), None)
