"""A few steps of one kind of SAE: whether its architecture keeps its contract, the time of a step, and its memory."""
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import Settings
from saesweep.data.forward_size import quickest
from saesweep.data.normalisation import Statistics
from saesweep.evaluation.subject import Subject, measured_at_a_time
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime.allocations import peak_bytes
from saesweep.runtime.isolate import isolate_failures
from saesweep.sweep import compilation
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.contract import require_contract
from saesweep.training.optimizer import UnitRowAdam, parameter_group
from saesweep.training.pieces import forward_backward

log = logging.getLogger(__name__)
ROWS = 64  # of which memory in proportion to rows is measured


class Probed(NamedTuple):
    seconds: float  # per token
    step: int  # bytes that a step takes beside the weights and moments
    latents: int | None  # bytes of the latents in the evaluation; None where that fails


def probe_step(job: Settings, read: Rows, statistics: Statistics, point: HookPoint) -> Probed:
    """Steps on raw activations, first of the untrained SAE, then at its target L0."""
    compilation.wait()
    tensors = point.of(read)
    u = torch.cat([_normalised(x) for x in tensors], 1)
    try:
        sae = build(job, *statistics.sizes).to(u.device)
        require_contract(sae, u[:ROWS], job["arch"])
        dense = job["dense"] or sae.step(u[:ROWS], u.new_zeros(()), 0.0).latents.entries is None
        if sae.thresholded:
            meet_l0_(sae, sae.inputs(u[: job["batch_tokens"]]))
        call = _Steps(sae, job["arch"]["optimizer"])
        call(u[:ROWS])  # makes the moments
        call.forget_norms()
        batch = u.repeat(-(-job["batch_tokens"] // len(u)), 1)[: job["batch_tokens"]]
        step = peak_bytes(lambda: call(batch))
        if dense:
            rows = min(len(batch), sae.execution.dense_rows(sae.d_sae)) if sae.separable(0.0) else len(batch)
            step = max(step, sum(p.nbytes for p in sae.parameters()) + rows * _dense_row_bytes(job))
        u = u[: job["batch_tokens"]]
        latents = _latent_bytes(sae, [x[:ROWS] for x in tensors], statistics, point)
        return Probed(quickest(lambda: call(u))[0] / len(u), step, latents)
    except Exception as error:
        error.add_note(f"in a step of arch={job['arch']['name']} that the plan takes to measure its time")
        raise


def _normalised(x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    u = x.float() - x.float().mean(0)
    return u.div_(u.square().sum(1).mean().sqrt())


class _Steps:
    """Forward, backward and update."""

    def __init__(self, sae: SparseAutoencoder, numbers: Mapping[str, Any]) -> None:
        self.sae, self.optimizer = sae, UnitRowAdam([parameter_group(sae, numbers)])

    def __call__(self, x: Float[Tensor, "batch _"]) -> None:
        self.sae.execution.deferred_gradients = []
        forward_backward(self.sae, x, x.new_zeros(()), progress=1.0, share=1.0)
        self.optimizer.step_sae(0, self.sae)

    def forget_norms(self) -> None:
        """The next step clips by its own norm, as the first one does, for which whole gradients are formed."""
        for state in self.optimizer.state.values():
            state.pop("squares", None)


def _dense_row_bytes(job: Settings) -> int:
    """Memory of a dense step per row of the batch: of an SAE with two inputs, whose weights take next to none."""
    call = _Steps(build({**job, "dense": True}, 2), job["arch"]["optimizer"])
    call.sae.execution.dense_bytes = sys.maxsize  # none is taken in pieces
    x = torch.randn(2 * ROWS, 2, generator=torch.Generator().manual_seed(0))
    call(x)
    few, many = (peak_bytes(lambda rows=rows: call(x[:rows])) for rows in (ROWS, 2 * ROWS))
    return (many - few) // ROWS


@torch.no_grad()
def _latent_bytes(
    sae: SparseAutoencoder, tensors: Sequence[Float[Tensor, "rows _"]], statistics: Statistics, point: HookPoint
) -> int | None:
    """Memory of the evaluation's dense latents; None for an SAE that cannot be measured, and will fail there, alone."""
    subject = Subject(sae, point, statistics)
    subject.start(1)
    x, *target = tensors
    documents = torch.zeros(len(x), dtype=torch.long)
    with isolate_failures(lambda error: log.debug("the memory of an evaluation was not measured", exc_info=error)):
        return peak_bytes(lambda: subject.measure(x, documents, *target)) * measured_at_a_time(x) // len(x)
    return None
