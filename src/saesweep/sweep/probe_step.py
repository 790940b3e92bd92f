"""A few steps of one kind of SAE: whether its architecture keeps its contract, the time of a step, and its memory."""
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import Settings
from saesweep.data.forward_size import quickest
from saesweep.data.normalisation import Statistics
from saesweep.evaluation.subject import MEASURED_AT_A_TIME, Subject
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.allocations import peak_bytes
from saesweep.runtime.isolate import isolate_failures
from saesweep.sweep import compilation
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.contract import require_contract
from saesweep.training.optimizer import UnitRowAdam, parameter_group

log = logging.getLogger(__name__)
ROWS = 64  # of which memory in proportion to rows is measured


class Probed(NamedTuple):
    seconds: float  # per token
    step: int  # bytes that a step takes beside the weights and moments
    latents: int  # bytes of the latents in the evaluation


def probe_step(job: Settings, x: Float[Tensor, "rows d_in"], statistics: Statistics, point: HookPoint) -> Probed:
    """Steps on raw activations, first of the untrained SAE, then at its target L0."""
    compilation.wait()
    u = x.float() - x.float().mean(0)
    u /= u.square().sum(1).mean().sqrt()
    try:
        sae = build(job, x.shape[1]).to(x.device)
        require_contract(sae, u[:ROWS], job["arch"])
        dense = job["dense"] or sae.step(u[:ROWS], u.new_zeros(()), 0.0).latents.entries is None
        if sae.thresholded:
            meet_l0_(sae, u[: job["batch_tokens"]])
        call = _Steps(sae, job["arch"]["optimizer"])
        call(u[:ROWS])  # makes the moments
        batch = u.repeat(-(-job["batch_tokens"] // len(u)), 1)[: job["batch_tokens"]]
        step = peak_bytes(lambda: call(batch))
        if dense:
            gradients, latents = sum(p.nbytes for p in sae.parameters()), job["batch_tokens"] * _dense_row_bytes(job)
            step = max(step, gradients + (min(latents, sae.execution.dense_bytes) if sae.separable(0.0) else latents))
        u = u[: job["batch_tokens"]]
        return Probed(quickest(lambda: call(u))[0] / len(u), step, _latent_bytes(sae, x[:ROWS], statistics, point))
    except Exception as error:
        error.add_note(f"in a step of arch={job['arch']['name']} that the plan takes to measure its time")
        raise


class _Steps:
    """Forward, backward and update."""

    def __init__(self, sae: SparseAutoencoder, numbers: Mapping[str, Any]) -> None:
        self.sae, self.optimizer = sae, UnitRowAdam([parameter_group(sae, numbers)])

    def __call__(self, x: Float[Tensor, "batch d_in"]) -> None:
        self.sae.execution.deferred_gradients = []
        step = self.sae.step(x, x.new_zeros(()), 1.0)  # its latents are needed after the backward pass, as in a training
        torch.stack(list(step.losses.values())).sum().backward()
        self.optimizer.step_sae(0, self.sae)


def _dense_row_bytes(job: Settings) -> int:
    """Memory of a dense step per row of the batch: of a copy with two inputs, whose weights take next to none."""
    call = _Steps(build({**job, "dense": True}, 2), job["arch"]["optimizer"])
    x = torch.randn(2 * ROWS, 2, generator=torch.Generator().manual_seed(0))
    call(x)
    few, many = (peak_bytes(lambda rows=rows: call(x[:rows])) for rows in (ROWS, 2 * ROWS))
    return (many - few) // ROWS


@torch.no_grad()
def _latent_bytes(sae: SparseAutoencoder, x: Float[Tensor, "rows d_in"], statistics: Statistics, point: HookPoint) -> int:
    """Memory of the evaluation's dense latents."""
    subject = Subject(sae, point, statistics)
    subject.start(1)
    documents, held = torch.zeros(len(x), dtype=torch.long), 0
    # an SAE that cannot be measured fails in its own evaluation, alone
    with isolate_failures(lambda error: log.debug("the memory of an evaluation was not measured", exc_info=error)):
        held = peak_bytes(lambda: subject.measure(x, documents))
    return held * MEASURED_AT_A_TIME // len(x)
