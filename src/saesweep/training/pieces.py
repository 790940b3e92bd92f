"""Forward and backward of a step; of a dense one whose latents would take too much memory, piece by piece.

An SAE with thresholds may start with half of its latents active. Dense products are then faster than a list, and hold several
matrices [batch, d_sae]. The batch is cut by rows into pieces of at most `Execution.dense_rows`, and

    loss = sum over pieces of  rows of the piece / rows of the batch * loss(piece)

What a loss takes from the whole batch, it all-reduces, as if each piece were on a rank of its own: a first pass over the
pieces, without gradient, adds that up, and a second one reads it. Where nothing is all-reduced, one pass is enough.
"""
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.execution import Ranks, TooManyRows
from saesweep.arch.ops.precision import training_products


class Outcome(NamedTuple):
    """What the training takes from a step on this rank's rows: losses and L0 are means over them."""

    losses: Mapping[str, Float[Tensor, ""]]
    l0: Float[Tensor, ""]
    fired: Bool[Tensor, " d_sae"]


def forward_backward(
    sae: SparseAutoencoder, x: Float[Tensor, "own d_in"], coefficient: Float[Tensor, ""], progress: float, share: float
) -> Outcome:
    """Add the gradient of share * (sum of the losses) to that of the parameters; share: of the batch's rows, those in x."""
    try:
        while True:  # a second time where a list lacks entries: it is then counted
            outcome = attempt(sae, x, coefficient, progress, share)
            if not overflowed(sae):
                return outcome
            drop_gradients(sae)
    except TooManyRows:
        for room in sae.execution.rooms:
            room.forget()
    with training_products(x.device):
        return _in_pieces(sae, x, coefficient, progress, share)


def attempt(
    sae: SparseAutoencoder, x: Float[Tensor, "own d_in"], coefficient: Float[Tensor, ""], progress: float, share: float
) -> Outcome:
    """`forward_backward` where nothing exceeds its room, which `overflowed` says. Raises TooManyRows where it takes pieces."""
    execution = sae.execution
    execution.in_pieces = sae.separable(progress)
    execution.retaken = execution.in_pieces or sae.repeatable(progress)  # neither changes a buffer
    try:
        with training_products(x.device):
            return _differentiated(sae.step(x, coefficient, progress), share)
    finally:
        execution.in_pieces = execution.retaken = False


def overflowed(sae: SparseAutoencoder) -> bool:
    """Whether the step lacks what had no room; sets the room of the next one, all of it."""
    return any([room.overflowed() for room in sae.execution.rooms])


def drop_gradients(sae: SparseAutoencoder) -> None:
    sae.zero_grad()
    if sae.execution.deferred_gradients is not None:
        sae.execution.deferred_gradients.clear()


def _differentiated(step: Step, share: float) -> Outcome:
    (torch.stack(list(step.losses.values())).sum() * share).backward()
    return Outcome({key: loss.detach() for key, loss in step.losses.items()}, step.latents.l0, step.latents.fired)


def _in_pieces(
    sae: SparseAutoencoder, x: Float[Tensor, "own d_in"], coefficient: Float[Tensor, ""], progress: float, share: float
) -> Outcome:
    usual, ranks = sae.execution, PieceRanks()
    pieces = x.tensor_split(math.ceil(len(x) / usual.dense_rows(sae.d_sae)))
    shares = [len(piece) / len(x) for piece in pieces]
    sae.execution = replace(usual, dense=True, ranks=ranks)
    try:
        with torch.no_grad():
            sae.step(x[:1], coefficient, progress)  # is anything all-reduced?
            if ranks.sums:
                ranks.sums = []
                for piece in pieces:
                    sae.step(piece, coefficient, progress)
                ranks.sum_over(usual.ranks)
        parts = [_differentiated(sae.step(piece, coefficient, progress), share * part)
                 for piece, part in zip(pieces, shares, strict=True)]
    finally:
        sae.execution = usual
    return _mean(parts, shares)


def _mean(parts: Sequence[Outcome], shares: Sequence[float]) -> Outcome:
    def mean(values: Iterable[Tensor]) -> Tensor:
        return torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum()

    losses = {key: mean(part.losses[key] for part in parts) for key in parts[0].losses}
    return Outcome(losses, mean(part.l0 for part in parts), torch.stack([part.fired for part in parts]).any(0))


class PieceRanks(Ranks):
    """The pieces of a batch as ranks, for steps that all-reduce once: their sums are added up, then `sum_over`, then read."""

    def __init__(self) -> None:
        self.sums, self.complete = list[Tensor](), False

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        if not self.sums:
            self.sums = [tensor.clone() for tensor in tensors]
            return
        for tensor, total in zip(tensors, self.sums, strict=True):
            if self.complete:
                tensor.copy_(total)
            else:
                total += tensor

    def sum_over(self, ranks: Ranks) -> None:
        """All pieces have been added: read the sums over them and the ranks from here on."""
        ranks.all_reduce_(self.sums)
        self.complete = True

    def all_reduce_sum(self, value: float) -> float:
        raise NotImplementedError("a separable step all-reduces tensors only")

    def all_gather_values(self, values: Float[Tensor, " own"]) -> Float[Tensor, " all"]:
        raise NotImplementedError("a separable step gathers nothing")
