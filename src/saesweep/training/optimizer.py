"""Adam for N SAEs, a parameter group each, with decoders whose rows stay on the unit sphere.

    g <- g - (g . w) w          for rows w of norm one: what would only change their norm is dropped
    g <- g * min(1, clip / |g|) by the norm over the group, without the parameters that it leaves unclipped
    w <- Adam(w, g)
    w <- w / |w|                for rows of norm one

On a CPU and a GPU the four are one pass over each matrix (arch/ops), which without a clip forms the gradient as well, row
by row. A clip needs the whole gradient's norm first: then it is formed and measured in a pass of its own.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.ops import Adam, DeferredGradients, Sums, ops_for


class UnitRowAdam(torch.optim.Optimizer):
    """Each group: params, lr, betas, eps, clip (a norm or None), and which of its params are `unit` and `unclipped`.

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
    def step_group(self, index: int, deferred: DeferredGradients | None = None) -> None:
        """The step of one group, whose gradients are then dropped: those of all groups need never be there at once."""
        group = self.param_groups[index]
        gradients, clip = _gradients(group, deferred or [])
        for i, grad in gradients.items():
            p = group["params"][i]
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            factor = 1.0 if i in group["unclipped"] else clip
            weight, *moments = (as_rows(tensor) for tensor in (p.detach(), state["exp_avg"], state["exp_avg_sq"]))
            ops_for(p).adam(weight, grad, *moments, _numbers(group, state["step"], factor), i in group["unit"])
            p.grad = None


def _gradients(group: Mapping[str, Any], deferred: DeferredGradients) -> tuple[dict[int, Tensor | Sums], float | Tensor]:
    """By the parameter's position, its gradient as rows, left deferred where nobody needs its norm; and what clips it."""
    assert all(any(q is p for p in group["params"]) for q, _ in deferred), "of a parameter of another group"
    gradients, squares = dict[int, Tensor | Sums](), []
    for i, p in enumerate(group["params"]):
        sums = [s for q, s in deferred if q is p]
        if p.grad is None and len(sums) == 1:
            grad = sums[0]
        elif p.grad is not None or sums:
            grad = sum((ops_for(p).sum_columns(*s) for s in sums), as_rows(p.grad) if p.grad is not None else 0)
        else:
            continue
        if group["clip"] is not None and i not in group["unclipped"]:
            grad, found = ops_for(p).measured(grad, as_rows(p.detach()), i in group["unit"])
            squares.append(found.sum(dtype=torch.float64))
        gradients[i] = grad
    return gradients, clip_factor(group["clip"], squares)


def parameter_group(sae: SparseAutoencoder, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Of UnitRowAdam, with the numbers of conf/arch."""
    names, parameters = zip(*sae.named_parameters(), strict=True)
    numbers = {key: optimizer[key] for key in ("lr", "eps", "clip")}
    unclipped = [i for i, name in enumerate(names) if name in sae.unclipped]
    betas = tuple(optimizer["betas"])
    return {"params": list(parameters), **numbers, "betas": betas, "unit": [names.index("W_dec")], "unclipped": unclipped}


def clip_factor(clip: float | None, squares: Sequence[Tensor]) -> float | Tensor:
    """What gradients of these squared norms are multiplied by: 1 below the clip. On a GPU nobody waits for it."""
    return (clip / torch.stack(squares).sum().sqrt()).clamp(max=1.0) if squares else 1.0


def _numbers(group: dict[str, Any], step: int, factor: float | Tensor) -> Adam:
    beta1, beta2 = group["betas"]
    return Adam(factor, group["lr"] / (1 - beta1**step), beta1, beta2, 1 / math.sqrt(1 - beta2**step), group["eps"])


def as_rows(x: Tensor) -> Tensor:
    """A vector as a matrix of one row; never a copy."""
    return x.view(-1, x.shape[-1])
