"""N SAEs on one stream of activations.

Their parameters are disjoint, so the gradient of the summed loss is each SAE's own: a backward and an update per member,
in one optimizer with a group per member, are exactly N trainings, and N = 1 is nothing special. Clipping, schedules and
failures are a member's own; trained jointly or alone, on a CPU, the weights are bitwise the same.
"""
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import dead_share
from saesweep.lm.hooks import HookPoint
from saesweep.loggers.sweep_logger import SweepLogger
from saesweep.runtime import distributed, signals
from saesweep.runtime.memory import alone
from saesweep.training.l0_controller import Coefficient
from saesweep.training.optimizer import UnitRowAdam, parameter_group
from saesweep.training.ranks import SharedRanks
from saesweep.training.running_sums import Moments, RunningSums, moments_of

log = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")


class Member(nn.Module):
    """One SAE of the group: where it reads, its coefficient, its optimizer's numbers, its latest metrics."""

    def __init__(
        self, label: str, point: HookPoint, sae: SparseAutoencoder, coefficient: Coefficient | None,
        optimizer: Mapping[str, Any],
    ):
        """`coefficient`: None where the architecture has none."""
        super().__init__()
        self.label, self.point, self.sae, self.coefficient, self.optimizer = label, point, sae, coefficient, optimizer
        self.sums, self.latest, self.failed = RunningSums(), dict[str, float](), ""
        self.sae.execution.ranks = SharedRanks()
        self.declared = False  # failed for a reason that the training itself has found

    def learning_rate(self, progress: float) -> float:
        """Rises linearly over `warmup`, falls linearly to zero over `decay`: shares of the run."""
        warmup, decay = self.optimizer["warmup"], self.optimizer["decay"]
        rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
        fall = min(1.0, (1 - progress) / decay) if decay > 0 else 1.0
        return self.optimizer["lr"] * rise * fall

    def step_(
        self, batch: Float[Tensor, "batch d_in"], progress: float, moments: Moments | None = None
    ) -> Float[Tensor, ""]:
        """Forward, backward, counters and coefficient for one batch; the optimizer's part is the group's.

        `moments`: `moments_of` the batch, where they are known.
        """
        x = distributed.own(batch)
        self.sae.execution.deferred_gradients = [] if distributed.ranks_per_sae() == 1 else None
        step = self.sae.step(x, x.new_zeros(()) if self.coefficient is None else self.coefficient.at(progress), progress)
        share = len(x) / len(batch)
        loss = torch.stack(list(step.losses.values())).sum() * share
        loss.backward()
        fired, l0 = step.latents.fired, step.latents.l0 * share
        if distributed.ranks_per_sae() > 1:
            votes = fired.to(l0)
            distributed.sum_([l0, votes, *(p.grad for p in self.sae.parameters() if p.grad is not None)])
            fired = votes > 0
        self.sums.add(len(batch), moments or moments_of(batch), l0, step, share)
        self.sae.count_fired_(fired, len(batch))
        if self.coefficient is not None:
            self.coefficient.update_(l0, progress)
        return loss.detach()

    def dead_share(self, dead_after: int) -> float:
        return dead_share(self.sae.tokens_since_fired, self.sae.tokens_seen, dead_after)

    def failing_alone(self, when: str) -> AbstractContextManager[None]:
        def failed(error: Exception) -> None:
            known = isinstance(error, UsageError)
            log.error("%s: %s", self.label, error, exc_info=not known)
            self.stop_(f"{self.label}: {'' if known else f'{type(error).__name__}: '}{error} {when}")

        return alone(failed)

    def stop_(self, reason: str) -> None:
        """The rest of the group goes on without it."""
        self.failed = reason
        for parameter in self.sae.parameters():
            parameter.grad = None
            parameter.requires_grad_(False)


class SAESweep(L.LightningModule):
    """Members with disjoint parameters on one stream of {hook point: activations} batches."""

    def __init__(
        self, members: list[Member], *, steps: int, batch_tokens: int, log_tokens: int, dead_after: int,
        progress: Callable[[SAESweep], None] = lambda module: None,
        after_step: Callable[[SAESweep], None] = lambda module: None,
    ):
        super().__init__()
        self.progress, self.after_step = progress, after_step
        self.members = nn.ModuleList(members)
        self.total_steps, self.batch_tokens, self.dead_after = steps, batch_tokens, dead_after
        self.log_steps = max(1, log_tokens // batch_tokens)
        groups = [parameter_group(member.sae, member.optimizer) for member in members]
        self.optimizer = UnitRowAdam(groups) if groups else None  # a rank without SAEs reads for the others
        self.steps_done = 0
        self._last_log = (0, time.monotonic())
        self.tokens_per_second = 0.0

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members if not member.failed]

    @property
    def tokens(self) -> int:
        return self.steps_done * self.batch_tokens

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def on_train_start(self) -> None:
        signals.take_back()
        self._last_log = (self.tokens, time.monotonic())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if not self.running and distributed.ranks_per_sae() == distributed.world_size():  # else others need what it reads
            self.trainer.should_stop = True
            return -1  # nothing is left to train in this epoch
        return None

    def training_step(self, batch: dict[HookPoint, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        """Member by member, update included: the activations and gradients of one at a time are held, and are in the cache.

        All members take the step or none, and what is due after it is done: a signal waits for that.
        """
        with signals.deferred():
            moments = {point: moments_of(batch[point]) for point in {member.point for member in self.running}}
            losses = [
                self._step(index, member, batch[member.point], moments[member.point])
                for index, member in enumerate(self.members) if not member.failed
            ]
            self.steps_done += 1
            if self.steps_done % self.log_steps == 0 or self.steps_done == self.total_steps:
                self._log()
            self.after_step(self)
        return torch.stack(losses or [torch.zeros((), device=self.device)]).sum()

    def _step(self, index: int, member: Member, x: Float[Tensor, "batch d_in"], moments: Moments) -> Float[Tensor, ""]:
        self.optimizer.param_groups[index]["lr"] = member.learning_rate((self.steps_done + 1) / (self.total_steps + 1))
        alone = distributed.ranks_per_sae() == 1  # else the other ranks are in the middle of this step
        with member.failing_alone(f"after {self.tokens:,} tokens") if alone else nullcontext():
            loss = member.step_(x, self.steps_done / self.total_steps, moments)
            self.optimizer.step_group(index, member.sae.execution.deferred_gradients)
            member.sae.constrain_()
            return loss
        return x.new_zeros(())

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Lightning asks for it between the step and its backward: each member has done both."""

    def backward(self, loss: Float[Tensor, ""], *args: Any) -> None:
        """Done by each member, in `training_step`."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable) -> None:
        optimizer_closure()  # every member's update is a part of its step

    def _log(self) -> None:
        now, (tokens, then) = time.monotonic(), self._last_log
        self._last_log, self.tokens_per_second = (self.tokens, now), (self.tokens - tokens) / (now - then)
        running = {index: member for index, member in enumerate(self.members) if not member.failed}
        for member in running.values():
            member.latest, finite = distributed.told((self._metrics(member), member.sums.finite()))
            member.sums = RunningSums()
            if not finite:
                member.declared = True
                member.stop_(f"{member.label}: the activations at {member.point} are not finite, somewhere in the last "
                             f"{self.log_steps * self.batch_tokens:,} of {self.tokens:,} tokens")
            self.stop_where_not_finite_(member)
        for index, reason in distributed.told(self._write(running)).items():
            self.members[index].stop_(reason)
        self.progress(self)

    def _write(self, running: Mapping[int, Member]) -> dict[int, str]:
        """Which members' rows could not be written, and why."""
        problems = {}
        for index, member in running.items():
            try:
                if isinstance(self.logger, SweepLogger):
                    self.logger.log_member(index, member.latest, self.tokens)
            except OSError as error:
                problems[index] = f"{member.label}: {error} after {self.tokens:,} tokens"
        return problems

    def stop_where_not_finite_(self, member: Member) -> None:
        """Weights are looked at as well: a latent whose pre-activation is NaN is merely never active.

        An fvu alone is not finite where the tokens do not vary, which says nothing about the SAE.
        """
        if member.failed:
            return
        bad = [key for key, value in member.latest.items() if not math.isfinite(value)]
        bad = [] if bad == ["fvu"] else bad
        bad += [name for name, p in member.sae.named_parameters() if not bool(p.sum().isfinite())]
        if bad:
            member.declared = True
            member.stop_(f"{member.label}: {', '.join(bad)} not finite after {self.tokens:,} tokens")

    def _metrics(self, member: Member) -> dict[str, float]:
        extra = {} if member.coefficient is None else {"coefficient": float(member.coefficient.value)}
        return member.sums.means() | extra | {
            "dead": member.dead_share(self.dead_after),
            "lr": self.optimizer.param_groups[list(self.members).index(member)]["lr"],
            "tokens_per_second": self.tokens_per_second,
        }

    def state_of(self, member: Member) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Its tensors, and the rest as JSON knows it: with `restore_`, the member goes on as if it had never stopped."""
        member.sums.reduce_()
        tensors = {f"member.{key}": tensor for key, tensor in member.state_dict().items()}
        steps = {}
        for name, p in member.sae.named_parameters():
            if state := self.optimizer.state.get(p):
                steps[name] = state["step"]
                tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS}
        tensors["sums.x"] = member.sums.x
        return tensors, {"steps": steps, "sums": member.sums.plain()}

    def restore_(self, member: Member, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        member.load_state_dict({key.removeprefix("member."): t for key, t in tensors.items() if key.startswith("member.")})
        for name, p in member.sae.named_parameters():
            if name in state["steps"]:
                moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS}
                self.optimizer.state[p] = {"step": state["steps"][name], **moments}
        member.sums = RunningSums(**state["sums"], x=tensors["sums.x"])
        member.sums.only_on_rank_0_()
