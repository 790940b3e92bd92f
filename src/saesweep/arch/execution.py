"""How a step is computed, which changes no result: layout, where gradients are formed, and the ranks that share a batch."""
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from saesweep.arch.ops.entries import DeferredGradients
from saesweep.arch.ops.room import Room
from saesweep.arch.ops.rounded import Rounded

DENSE_BYTES = 4 * 2**30  # of memory for the latents of a dense step, beyond weights and gradients
DENSE_COPIES = 10  # matrices [batch, d_sae] of 4 bytes that a dense step holds at its peak (tests/test_pieces.py)


@runtime_checkable
class Ranks(Protocol):
    """The ranks that train an SAE together, each on its rows of the batch (runtime/distributed.py); as defined here, of one."""

    def all_reduce_sum(self, value: float) -> float:
        """The sum over the ranks of a number that each of them has."""
        return value

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, all of one dtype, by its sum over the ranks; no gradient passes."""

    def all_gather_values(self, values: Float[Tensor, " own"]) -> Float[Tensor, " all"]:
        """The values of all ranks, one rank after the other."""
        return values


class SingleRank(Ranks):
    """An SAE that is not trained, or by one rank."""


class TooManyRows(Exception):
    """A dense step on this batch would hold more than `dense_bytes`."""


@dataclass
class Execution:
    """Set by the training; the defaults are those of an SAE on its own.

    dense: every step by dense products and autograd alone, the reference for the step over a list.
    deferred_gradients: a list to which backward appends weight gradients for the optimizer to form; None: form all.
    ranks: who has the other rows of the batch.
    dense_bytes: of memory for the latents of a dense step.
    rounded_W: W_enc in bf16, on a GPU.
    room: for lists whose length the host does not wait for, on a GPU; None: it waits.
    dead_room: for dead latents, likewise (auxk.py).
    graphs: the training repeats steps as CUDA graphs (training/graphs.py).
    in_pieces: the training takes a dense step that would hold more in pieces, for which it raises TooManyRows.
    retaken: the training takes a step again that has overflowed a room; none is used without it (training/pieces.py).
    """

    dense: bool = False
    deferred_gradients: DeferredGradients | None = None
    ranks: Ranks = field(default_factory=SingleRank)
    dense_bytes: int = DENSE_BYTES
    rounded_W: Rounded = field(default_factory=Rounded)
    room: Room | None = None
    dead_room: Room | None = None
    graphs: bool = False
    in_pieces: bool = False
    retaken: bool = False

    @property
    def rooms(self) -> list[Room]:
        return [room for room in (self.room, self.dead_room) if room is not None]

    def dense_rows(self, d_sae: int) -> int:
        """The most rows of a batch whose latents a dense step can hold."""
        return max(1, self.dense_bytes // (DENSE_COPIES * 4 * d_sae))
