"""One SAE of a group: a training step without its optimizer, and how it stops without the others."""
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import dead_share
from saesweep.lm.hooks import HookPoint
from saesweep.runtime import distributed
from saesweep.runtime.isolate import isolate_failures
from saesweep.training.contract import changed_keys
from saesweep.training.graphs import StepGraphs
from saesweep.training.l0_controller import Coefficient
from saesweep.training.optimizer import UnitRowAdam
from saesweep.training.pieces import forward_backward
from saesweep.training.running_sums import Moments, RunningSums, moments_of

log = logging.getLogger(__name__)


class Member(nn.Module):
    """One SAE of the group: its hook point, its coefficient, its optimizer's numbers, its latest metrics."""

    sae: SparseAutoencoder
    coefficient: Coefficient | None

    def __init__(
        self, label: str, point: HookPoint, sae: SparseAutoencoder, coefficient: Coefficient | None,
        optimizer: Mapping[str, Any],
    ):
        """`label`: its name in logs; `coefficient`: None for an architecture without a sparsity penalty."""
        super().__init__()
        self.label, self.point, self.sae, self.coefficient, self.optimizer = label, point, sae, coefficient, optimizer
        self.sums, self.latest, self.failed = RunningSums(), dict[str, float](), ""
        self.loss_keys: tuple[str, ...] = ()  # of the first step
        self.sae.execution.ranks = distributed
        if distributed.ranks_per_sae() > 1:  # a step that one of them repeats would wait for the others
            self.sae.execution.room = self.sae.execution.dead_room = None
            self.sae.execution.graphs = False
        self.graphs = StepGraphs(sae, point) if self.sae.execution.graphs else None
        self.declared = False  # failed for a reason that the training detected, such as weights that are not finite

    def learning_rate(self, progress: float) -> float:
        """lr with a linear warm-up over the first `warmup` share of the run and a linear decay over the last `decay`."""
        warmup, decay = self.optimizer["warmup"], self.optimizer["decay"]
        rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
        fall = min(1.0, (1 - progress) / decay) if decay > 0 else 1.0
        return self.optimizer["lr"] * rise * fall

    def step_(
        self, batch: Float[Tensor, "batch _"], progress: float, moments: Moments | None = None
    ) -> Float[Tensor, ""]:
        """Forward, backward, counters and coefficient for one batch, without the optimizer step. Returns the loss.

        `moments`: `moments_of` what is reconstructed, if already computed.
        """
        x = distributed.shard(batch)
        if self.failed:
            return x.new_zeros(())
        self.sae.execution.deferred_gradients = [] if distributed.ranks_per_sae() == 1 else None
        coefficient = x.new_zeros(()) if self.coefficient is None else self.coefficient.at(progress)
        share = len(x) / len(batch)
        if self.graphs is not None:
            losses, l0, fired = self.graphs.forward_backward(x, coefficient, progress)
        else:
            losses, l0, fired = forward_backward(self.sae, x, coefficient, progress, share)
        if self._stopped_by_its_losses(losses, progress):
            return x.new_zeros(())
        l0 = l0 * share
        if distributed.ranks_per_sae() > 1:
            votes = fired.to(l0)
            distributed.all_reduce_([l0, votes, *(p.grad for p in self.sae.parameters() if p.grad is not None)])
            fired = votes > 0
        self.sums.add(len(batch), moments or moments_of(self.sae.targets(batch)), l0, losses, share)
        self.sae.count_fired_(fired, len(batch))
        if self.coefficient is not None:
            self.coefficient.update_(l0, progress)
        return torch.stack(list(losses.values())).sum() * share

    def update_(self, optimizer: UnitRowAdam, index: int) -> None:
        """The optimizer step, of the group with this index, after `step_`."""
        if self.graphs is not None:
            self.graphs.update(optimizer, index)
        else:
            optimizer.step_sae(index, self.sae)

    def _stopped_by_its_losses(self, losses: Mapping[str, Tensor], progress: float) -> bool:
        """Stop this SAE if the keys of its losses are not those of its first step: each has a column in the logs.

        Ranks need not agree on it: the keys do not depend on the rows of the batch, so all ranks stop at the same step.
        """
        self.loss_keys = self.loss_keys or tuple(losses)
        problem = changed_keys(self.loss_keys, losses)
        if problem:
            self.stop_(f"{self.label}: at {progress:.1%} of the run, {problem}")
            log.error("%s", self.failed)
        return bool(problem)

    def dead_share(self, dead_after: int) -> float:
        return dead_share(self.sae.tokens_since_fired, self.sae.tokens_seen, dead_after)

    def failing_alone(self, when: str) -> AbstractContextManager[None]:
        def failed(error: Exception) -> None:
            known = isinstance(error, UsageError)
            log.error("%s: %s", self.label, error, exc_info=not known)
            self.stop_(f"{self.label}: {'' if known else f'{type(error).__name__}: '}{error} {when}")

        return isolate_failures(failed)

    def stop_(self, reason: str) -> None:
        """Stop training this SAE; the others of the group continue."""
        self.failed = reason
        if self.graphs is not None:
            self.graphs.drop()
        self.sae.execution.deferred_gradients = None
        for parameter in self.sae.parameters():
            parameter.grad = None
            parameter.requires_grad_(False)


class Members(nn.ModuleList):
    """A ModuleList of members only."""

    def __iter__(self) -> Iterator[Member]:
        return cast(Iterator[Member], super().__iter__())

    def __getitem__(self, index: int) -> Member:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cast(Member, super().__getitem__(index))
