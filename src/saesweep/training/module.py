"""N SAEs on one stream of activations.

Their parameters are disjoint, so a backward and an update per member, in one optimizer with a group per member, are exactly
N independent trainings. Clipping, schedules and failures are per member. On a CPU the weights of an SAE that is trained
jointly are bitwise those of one that is trained alone.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.loggers.sweep_logger import SweepLogger
from saesweep.runtime import distributed, signals
from saesweep.training.graphs import share_memory
from saesweep.training.member import Member, Members
from saesweep.training.optimizer import UnitRowAdam, parameter_group
from saesweep.training.running_sums import Moments, RunningSums, moments_of

MOMENTS = ("exp_avg", "exp_avg_sq", "squares")  # of an SAE's state in the optimizer, those that there are


class SAESweep(L.LightningModule):
    """Members with disjoint parameters on one stream of {hook point: activations} batches."""

    optimizer: UnitRowAdam

    def __init__(
        self, members: list[Member], *, steps: int, batch_tokens: int, log_tokens: int, dead_after: int,
        progress: Callable[[SAESweep], None] = lambda module: None,
        after_step: Callable[[SAESweep], None] = lambda module: None,
    ):
        super().__init__()
        self.progress, self.after_step = progress, after_step
        self.members = Members(members)
        self.total_steps, self.batch_tokens, self.dead_after = steps, batch_tokens, dead_after
        self.log_steps = max(1, log_tokens // batch_tokens)
        groups = [parameter_group(member.sae, member.optimizer) for member in members]
        if groups:  # a rank without SAEs harvests for the others
            self.optimizer = UnitRowAdam(groups)
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
        signals.reinstall_handlers()
        self._last_log = (self.tokens, time.monotonic())
        self._share_memory()

    def on_train_end(self) -> None:
        for member in self.members:
            member.sae.execution.rounded_W.drop()
        self._share_memory()

    def _share_memory(self) -> None:
        share_memory([member.graphs for member in self.members if member.graphs is not None])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if not self.running and distributed.ranks_per_sae() == distributed.world_size():  # else other ranks need its harvest
            self.trainer.should_stop = True
            return -1  # Lightning's word for the end of the epoch
        return None

    def training_step(self, batch: dict[HookPoint, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        """Forward, backward and update member by member, so that only one member's intermediates are held, in the cache.

        Signals are deferred until all members have taken the step and what is due after it is done.
        """
        with signals.deferred():
            saes = {member.point: member.sae for member in self.running}
            moments = {point: moments_of(sae.targets(batch[point])) for point, sae in saes.items()}
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
        independent = distributed.ranks_per_sae() == 1  # with several ranks per SAE the others are in the middle of this step
        with member.failing_alone(f"after {self.tokens:,} tokens") if independent else nullcontext():
            loss = member.step_(x, self.steps_done / self.total_steps, moments)
            if not member.failed:
                member.update_(self.optimizer, index)
            return loss
        return x.new_zeros(())

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Nothing: `step_group` frees the gradients."""

    def backward(self, loss: Float[Tensor, ""], *args: Any, **kwargs: Any) -> None:
        """Nothing: `training_step` includes it."""

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Call `training_step`, which includes the updates."""
        if optimizer_closure is not None:
            optimizer_closure()

    def _log(self) -> None:
        now, (tokens, then) = time.monotonic(), self._last_log
        self._last_log, self.tokens_per_second = (self.tokens, now), (self.tokens - tokens) / (now - then)
        running = {index: member for index, member in enumerate(self.members) if not member.failed}
        for member in running.values():
            member.latest, finite = distributed.broadcast((self._metrics(member), member.sums.finite()))
            member.sums = RunningSums()
            if not finite:
                member.declared = True
                member.stop_(f"{member.label}: the activations at {member.point} are not finite, somewhere in the last "
                             f"{self.log_steps * self.batch_tokens:,} of {self.tokens:,} tokens")
            self.stop_where_not_finite_(member)
        for index, reason in distributed.broadcast(self._write(running)).items():
            self.members[index].stop_(reason)
        self.progress(self)

    def _write(self, running: Mapping[int, Member]) -> dict[int, str]:
        """Write a row per member; returns the reason for each whose row could not be written."""
        problems = {}
        for index, member in running.items():
            try:
                if isinstance(self.logger, SweepLogger):
                    self.logger.log_member(index, member.latest, self.tokens)
            except UsageError as error:
                problems[index] = f"{member.label}: {error}"
            except OSError as error:
                problems[index] = f"{member.label}: {error} after {self.tokens:,} tokens"
        return problems

    def stop_where_not_finite_(self, member: Member) -> None:
        """Stop a member whose metrics or parameters are not finite. A NaN in one latent's parameters shows in no metric.

        fvu alone is NaN if the tokens do not vary, which is not the SAE's failure.
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
        """Its tensors, and the rest as JSON; after `restore_` the member continues as if it had never stopped."""
        member.sums.reduce_()
        tensors = {f"member.{key}": tensor for key, tensor in member.state_dict().items()}
        steps = {}
        for name, p in member.sae.named_parameters():
            if state := self.optimizer.state.get(p):
                steps[name] = state["step"]
                tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS if moment in state}
        tensors["sums.x"] = member.sums.x
        if (share := member.sae.execution.rounded_W.share) is not None:
            tensors["share"] = share
        return tensors, {"steps": steps, "sums": member.sums.plain()}

    def restore_(self, member: Member, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        member.load_state_dict({key.removeprefix("member."): t for key, t in tensors.items() if key.startswith("member.")})
        for name, p in member.sae.named_parameters():
            if name in state["steps"]:
                moments = {moment: t for moment in MOMENTS if (t := tensors.get(f"{moment}.{name}")) is not None}
                self.optimizer.state[p] = {"step": state["steps"][name], **moments}
        member.sae.execution.rounded_W.share = tensors.get("share")
        member.sums = RunningSums(**state["sums"], x=tensors["sums.x"])
        member.sums.only_on_rank_0_()
