"""Adam for N SAEs, a parameter group each, with decoders whose rows stay on the unit sphere.

    g <- g - (g . w) w          for rows w of norm one: what would only change their norm is dropped
    g <- g * min(1, clip / |g|) by the norm over the group, without the parameters that it leaves unclipped
    w <- Adam(w, g)
    w <- w / |w|                for rows of norm one

On a CPU and a GPU the four are one pass over each matrix (arch/ops).
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from saesweep.arch.ops import Adam, ops_for


class UnitRowAdam(torch.optim.Optimizer):
    """Each group: params, lr, betas, eps, clip (a norm or None), and the ids `unit` and `unclipped` of its params.

    `unit`: positions, in the group, of the matrices whose rows have norm one; `unclipped`: of those that are not clipped.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "clip": None, "unit": (), "unclipped": ()})

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for index in range(len(self.param_groups)):
            self.step_group(index)
        return loss

    @torch.no_grad()
    def step_group(self, index: int) -> None:
        """The step of one group, whose gradients are then dropped: those of all groups need never be there at once."""
        group = self.param_groups[index]
        found = [(i, p) for i, p in enumerate(group["params"]) if p.grad is not None]
        clip = clip_factor(group)
        for i, p in found:
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            factor = 1.0 if i in group["unclipped"] else clip
            rows = (as_rows(tensor) for tensor in (p.detach(), p.grad, state["exp_avg"], state["exp_avg_sq"]))
            ops_for(p).adam(*rows, _numbers(group, state["step"], factor), i in group["unit"])
            p.grad = None


def _numbers(group: dict[str, Any], step: int, factor: float | Tensor) -> Adam:
    beta1, beta2 = group["betas"]
    return Adam(factor, group["lr"] / (1 - beta1**step), beta1, beta2, math.sqrt(1 - beta2**step), group["eps"])


@torch.no_grad()
def clip_factor(group: dict[str, Any]) -> float | Tensor:
    """What the group's gradients are multiplied by: 1 without a clip or below it. On a GPU nobody waits for it."""
    clipped = [(i, p) for i, p in enumerate(group["params"]) if p.grad is not None and i not in group["unclipped"]]
    if group["clip"] is None or not clipped:
        return 1.0
    squares = [
        ops_for(p).row_squares(as_rows(p.grad), as_rows(p.detach()), i in group["unit"]).sum(dtype=torch.float64)
        for i, p in clipped
    ]
    return (group["clip"] / torch.stack(squares).sum().sqrt()).clamp(max=1.0)


def as_rows(x: Tensor) -> Tensor:
    """A vector as a matrix of one row; never a copy."""
    return x.view(-1, x.shape[-1])
