"""The training steps of an SAE as CUDA graphs: `cuda_graphs=true`, on a GPU.

A step launches 100 to 200 operations, which for a small SAE takes the host longer than the GPU. A CUDA graph is one launch. It
repeats kernels with the addresses, sizes and numbers of its capture, so

    addresses    what lives from step to step is written in place, and the batch is copied to where the graph reads it
    sizes        batches have one number of rows (data/stream.py), lists and dead latents room that stays (arch/ops/room.py)
    numbers      the coefficient, the learning rate and Adam's corrections are tensors

An SAE has two graphs: forward and backward, and the update. Between them the host reads whether something has exceeded its
room; the step is then taken again without a graph. Steps are captured once `WARM_UP` of one kind, equal in all sizes, have been
taken without a graph. Those that are not `repeatable` never are.

Graphs share memory, because they run one after the other: what one computes is read before the next one runs. So nothing that
one step leaves to the next may be allocated in a capture.
"""
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.ops.room import Late, Room
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.memory import out_of_memory
from saesweep.training.optimizer import UnitRowAdam
from saesweep.training.pieces import Outcome, attempt, drop_gradients, forward_backward, overflowed

WARM_UP = 2  # steps of a kind, in which its kernels are compiled and what lives from step to step is made
T = TypeVar("T")
Repeat = Callable[[], None]


class SharedMemory:
    """What the graphs of a group share: where they compute, and the batch that they read."""

    def __init__(self) -> None:
        self.failed = False  # a capture has: torch makes no other in this memory
        self._batches: dict[HookPoint, Tensor] = {}
        self._copied: dict[HookPoint, tuple[Tensor, int]] = {}
        self._first: torch.cuda.CUDAGraph | None = None  # keeps the memory while other graphs come and go

    def captured(self, work: Callable[[], T]) -> tuple[Repeat, T]:
        """A graph of what `work` launches, which does not run here, and what it returns."""
        self.failed = True
        if self._first is None:
            self._first, _ = self._graph_of(lambda: torch.zeros(1, device="cuda"))
        graph, found = self._graph_of(work)
        self.failed = False
        return graph.replay, found

    def _graph_of(self, work: Callable[[], T]) -> tuple[Any, T]:
        graph, pool = torch.cuda.CUDAGraph(), None if self._first is None else self._first.pool()
        here = torch.cuda.stream(torch.cuda.current_stream())  # also after a capture that fails
        with here, torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            found = work()
        return graph, found

    def batch(self, point: HookPoint, x: Float[Tensor, "batch _"]) -> Float[Tensor, "batch _"]:
        """The same values where a graph of this hook point reads them, copied once for all SAEs."""
        there, (known, version) = self._batches.get(point), self._copied.get(point, (None, 0))
        if there is None or there.shape != x.shape:
            there = self._batches[point] = x.clone()
        elif known is not x or version != x._version:
            there.copy_(x)
        self._copied[point] = x, x._version
        return there


class StepGraphs:
    """The graphs of one SAE; without one it takes the same steps by itself."""

    def __init__(self, sae: SparseAutoencoder, point: HookPoint):
        self.sae, self.point, self.memory = sae, point, SharedMemory()
        self.drop()

    def drop(self) -> None:
        """Free the graphs, and begin anew; the memory is kept for others."""
        self._forward: _Forward | None = None
        self._update: tuple[Repeat, list[int]] | None = None
        self._kind: tuple | None = None
        self._taken = 0  # steps of this kind

    def forward_backward(
        self, x: Float[Tensor, "batch _"], coefficient: Float[Tensor, ""], progress: float
    ) -> Outcome:
        """As `pieces.forward_backward` of the whole batch."""
        self._count(x, progress)
        if self._repeats or self._is_last_before:
            outcome = (self._repeated if self._repeats else self._without_waits)(x, coefficient, progress)
            if not overflowed(self.sae):
                return outcome
            self.drop()
            drop_gradients(self.sae)
        return forward_backward(self.sae, x, coefficient, progress, 1.0)

    @property
    def _repeats(self) -> bool:
        """Whether this step is a graph's."""
        return self._kind is not None and self._taken > WARM_UP

    @property
    def _is_last_before(self) -> bool:
        """Whether the next step of this kind is captured."""
        return self._kind is not None and self._taken == WARM_UP

    def _count(self, x: Float[Tensor, "batch _"], progress: float) -> None:
        execution, sae = self.sae.execution, self.sae
        sizes = [room.size for room in execution.rooms]
        pieces = sae.separable(progress) and len(x) > execution.dense_rows(sae.d_sae)
        known = None not in sizes and not (pieces and (execution.dense or "dense" in sizes))
        captures = sae.repeatable(progress) and x.dtype == torch.float32 and not self.memory.failed
        kind = (x.shape, *sizes) if known and captures else None
        if kind != self._kind:
            self.drop()
            self._kind = kind
        self._taken += 1

    def _repeated(self, x: Float[Tensor, "batch _"], coefficient: Float[Tensor, ""], progress: float) -> Outcome:
        x = self.memory.batch(self.point, x)
        self._forward = self._forward or _Forward(self.sae, self.memory, x, coefficient, progress)
        self._forward.repeat(coefficient)
        return self._forward.outcome

    def _without_waits(self, x: Float[Tensor, "batch _"], coefficient: Float[Tensor, ""], progress: float) -> Outcome:
        with _no_waits():
            return attempt(self.sae, x, coefficient, progress, 1.0)

    def update(self, optimizer: UnitRowAdam, index: int) -> None:
        """As `optimizer.step_sae`."""
        if not self._repeats:
            with _no_waits() if self._is_last_before else nullcontext():
                optimizer.step_sae(index, self.sae)
            return
        if self._update is None:
            with _refused():
                self._update = self.memory.captured(lambda: optimizer.step_sae(index, self.sae, begun=True))
        repeat, moved = self._update
        optimizer.begin_step(index, moved)
        repeat()


def share_memory(all_graphs: Sequence[StepGraphs]) -> None:
    """Of the SAEs of a group; what they had is freed."""
    memory = SharedMemory()
    for graphs in all_graphs:
        graphs.drop()
        graphs.memory = memory


class _Forward:
    """Forward and backward of steps of one kind. The gradients are left for the update."""

    def __init__(
        self, sae: SparseAutoencoder, memory: SharedMemory, x: Float[Tensor, "batch _"], coefficient: Float[Tensor, ""],
        progress: float,
    ):
        self._x, self._coefficient = x, coefficient.clone()
        with _refused():
            self._repeat, self.outcome = memory.captured(lambda: attempt(sae, x, self._coefficient, progress, 1.0))
        self._found: Sequence[tuple[Room, Sequence[Late]]] = [(room, room.taken()) for room in sae.execution.rooms]

    def repeat(self, coefficient: Float[Tensor, ""]) -> None:
        self._coefficient.copy_(coefficient)
        self._repeat()
        for room, found in self._found:
            room.repeated(found)


@contextmanager
def _no_waits() -> Iterator[None]:
    """Raises UsageError where the host waits for the GPU: a capture would fail, and leave memory behind."""
    usual = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with _refused():
            yield
    finally:
        torch.cuda.set_sync_debug_mode(usual)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"cuda_graphs=true: a step cannot be captured ({error.__context__ or error}); write "
                         "cuda_graphs=false, or let `repeatable` of the architecture return False") from error
