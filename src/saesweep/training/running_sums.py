"""The sums behind a row of metrics.csv, in fp64, over the steps since the row before."""
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.evaluation.metrics import ROUNDING
from saesweep.runtime import distributed


class Moments(NamedTuple):
    """Sums over this rank's rows of a batch."""

    x: Float[Tensor, " d_in"]
    squares: Float[Tensor, ""]  # ||x||^2


def moments_of(batch: Float[Tensor, "batch d_in"]) -> Moments:
    """Of this rank's rows, in fp64, because the mean may be far larger than the spread; by products, faster than sums."""
    x = distributed.shard(batch).double()
    return Moments(x.new_ones(len(x)) @ x, x.reshape(-1) @ x.reshape(-1))


@dataclass
class RunningSums:
    """Sums over the steps since the last row: `tokens`, `steps` and `active` of all ranks, the others of this rank."""

    tokens: int = 0
    steps: int = 0
    active: float | Tensor = 0.0
    error: float | Tensor = 0.0
    squares: float | Tensor = 0.0
    losses: dict[str, float | Tensor] = field(default_factory=dict)
    x: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))  # [d_in] after the first step

    def add(self, tokens: int, moments: Moments, l0: Float[Tensor, ""], losses: Mapping[str, Tensor], share: float) -> None:
        """Add a step on a batch of `tokens`; `l0`: of all ranks; `losses`: of this rank, which has a `share` of the tokens."""
        self.tokens, self.steps = self.tokens + tokens, self.steps + 1
        self.active += l0.double() * tokens
        self.error += losses["reconstruction"].detach().double() * (share * tokens)
        self.x, self.squares = self.x.to(moments.x.device) + moments.x, self.squares + moments.squares
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + loss.detach().double() * share

    def reduce_(self) -> None:
        """Move the sums of all ranks to rank 0; the other ranks keep zeros."""
        if distributed.ranks_per_sae() > 1:
            like = torch.as_tensor(self.active).double()
            sums = torch.stack([torch.as_tensor(x).to(like) for x in (self.error, self.squares, *self.losses.values())])
            self.x = self.x.clone()  # the members of one hook point may share it
            distributed.all_reduce_([sums, self.x])
            self.error, self.squares, *losses = sums
            self.losses = dict(zip(self.losses, losses, strict=True))
            self.only_on_rank_0_()

    def only_on_rank_0_(self) -> None:
        if distributed.rank_in_sae() > 0:
            self.error, self.squares, self.losses = 0.0, 0.0, dict.fromkeys(self.losses, 0.0)
            self.x = torch.zeros_like(self.x)

    def means(self) -> dict[str, float]:
        """A row's metrics. fvu is a share of the variance about the mean of all these tokens, NaN where they do not vary."""
        self.reduce_()
        losses = {f"loss_{name}": float(total) / self.steps for name, total in self.losses.items()}
        squares = float(self.squares)
        variance = squares - float(self.x.square().sum()) / self.tokens
        fvu = float(self.error) / variance if abs(variance) > ROUNDING * squares else math.nan
        return {"l0": float(self.active) / self.tokens, "fvu": fvu, **losses}

    def finite(self) -> bool:
        """Whether all activations were finite; after `reduce_`, on rank 0 those of all ranks."""
        return math.isfinite(float(self.squares))

    def plain(self) -> dict[str, Any]:
        """The numbers for JSON, which keeps fp64 exactly; `x` is saved as a tensor."""
        numbers = {key: float(getattr(self, key)) for key in ("active", "error", "squares")}
        losses = {name: float(total) for name, total in self.losses.items()}
        return {"tokens": self.tokens, "steps": self.steps, **numbers, "losses": losses}
