"""Adam for N SAEs, a parameter group each, with decoders whose rows stay on the unit sphere.

    g <- g - (g . w) w          for rows w of norm one: what would only change their norm is dropped
    g <- g * min(1, clip / |g|) by the norm over the group, without the parameters that it leaves unclipped
    w <- Adam(w, g)
    w <- w / |w|                for rows of norm one

On a CPU the four are one pass over each matrix.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saesweep.arch import kernels


class UnitRowAdam(torch.optim.Optimizer):
    """Each group: params, lr, betas, eps, clip (a norm or None), and the ids `unit` and `unclipped` of its params.

    `unit`: positions, in the group, of the matrices whose rows have norm one; `unclipped`: of those that are not clipped.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "clip": None, "unit": (), "unclipped": ()})

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        with torch.no_grad():
            self._step_all()
        return loss

    def _step_all(self) -> None:
        for group in self.param_groups:
            found = [(i, p) for i, p in enumerate(group["params"]) if p.grad is not None]
            if found:
                self._step(group, found)

    def _step(self, group: dict[str, Any], found: list[tuple[int, Tensor]]) -> None:
        clip = clip_factor(group)
        for i, p in found:
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            factor, unit = 1.0 if i in group["unclipped"] else clip, i in group["unit"]
            update = _fused if _compiled(p) else _plain
            update(p, p.grad, state, group, factor, unit)


def _compiled(p: Tensor) -> bool:
    return p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() and p.grad.is_contiguous()


@torch.no_grad()
def clip_factor(group: dict[str, Any]) -> float:
    """What the group's gradients are multiplied by; without a clip, or below it, 1."""
    if group["clip"] is None:
        return 1.0
    squares = [
        _square(p, i in group["unit"])
        for i, p in enumerate(group["params"])
        if p.grad is not None and i not in group["unclipped"]
    ]
    norm = math.sqrt(sum(squares)) if squares else 0.0
    return min(1.0, group["clip"] / norm) if norm > 0 else 1.0 if norm == 0 else float("nan")


def _square(p: Tensor, unit: bool) -> float:
    """Squared norm of the gradient, where rows have unit norm of its part that is tangent to the sphere."""
    if p.ndim == 2 and _compiled(p):
        rows = torch.empty(len(p))
        kernels.gradient_norms(p.grad.numpy(), p.detach().numpy(), unit, rows.numpy())
        return float(rows.double().sum())
    return float(tangent(p.grad, p).double().square().sum() if unit else p.grad.double().square().sum())


def as_rows(x: Tensor) -> Tensor:
    """A vector as a matrix of one row."""
    return x.view(-1, x.shape[-1])


def tangent(grad: Tensor, weight: Tensor) -> Tensor:
    """The rows of the gradient without their part along the rows of the weight, which have norm one."""
    return torch.addcmul(grad, (grad * weight).sum(1, keepdim=True), weight, value=-1)


def _corrections(state: dict[str, Any], group: dict[str, Any]) -> tuple[float, float]:
    beta1, beta2 = group["betas"]
    return group["lr"] / (1 - beta1 ** state["step"]), math.sqrt(1 - beta2 ** state["step"])


def _fused(p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any], factor: float, unit: bool) -> None:
    arrays = (as_rows(tensor.detach()) for tensor in (p, grad, state["exp_avg"], state["exp_avg_sq"]))
    step_size, bias2 = _corrections(state, group)
    scalars = (factor, step_size, *group["betas"], bias2, group["eps"])
    kernels.adam_rows(*(array.numpy() for array in arrays), *map(np.float32, scalars), unit)


def _plain(p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any], factor: float, unit: bool) -> None:
    """The definition, for every device and precision."""
    beta1, beta2 = group["betas"]
    step_size, bias2 = _corrections(state, group)
    grad = (tangent(grad, p) if unit else grad) * factor
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    mean.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    p.addcdiv_(mean, square.sqrt() / bias2 + group["eps"], value=-step_size)
    if unit:
        p /= p.norm(dim=1, keepdim=True)
