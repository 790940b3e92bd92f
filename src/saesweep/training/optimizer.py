"""Adam for N SAEs, one parameter group each, with decoder rows that stay on the unit sphere.

    g <- g - (g . w) w          for rows w of norm one: their radial part is dropped
    g <- g * min(1, clip / |g|) with the norm over the clipped parameters of the group
    w <- Adam(w, g)
    w <- w / |w|                for rows of norm one

The four are one pass over each matrix (arch/ops), which without a clip also forms the gradient, row by row. With a clip the
gradient is formed and its norm computed in a pass before.
"""
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.ops import ops_for
from saesweep.arch.ops.entries import Adam, DeferredGradients, Sums, merged


class UnitRowAdam(torch.optim.Optimizer):
    """Each group: params, lr, betas, eps, clip (a norm or None), and which of its params are `unit` and `unclipped`.

    `unit`: positions in params of the matrices whose rows have norm one; `unclipped`: of parameters without clipping.
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
        """One step of one group. It frees its gradients and empties `deferred`, so that never those of all groups are held."""
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
        if deferred:
            deferred.clear()


def _gradients(group: Mapping[str, Any], deferred: DeferredGradients) -> tuple[dict[int, Tensor | Sums], float | Tensor]:
    """Each parameter's gradient as rows, by position, still deferred where no norm is needed; and the clip factor."""
    assert all(any(q is p for p in group["params"]) for q, _ in deferred), "a deferred gradient is of another group"
    gradients, squares = dict[int, Tensor | Sums](), []
    for i, p in enumerate(group["params"]):
        sums = [s for q, s in deferred if q is p]
        if p.grad is None and (len(sums) == 1 or (sums and p.is_cuda)):  # on a CPU the order of the sums is kept
            grad = sums[0] if len(sums) == 1 else merged(sums)
        elif p.grad is not None or sums:
            formed = [] if p.grad is None else [as_rows(p.grad)]
            grad = reduce(torch.add, formed + [ops_for(p).sum_columns(*s) for s in sums])
        else:
            continue
        if group["clip"] is not None and i not in group["unclipped"]:
            grad, found = ops_for(p).grad_and_norms(grad, as_rows(p.detach()), i in group["unit"])
            squares.append(found.sum(dtype=torch.float64))
        gradients[i] = grad
    return gradients, clip_factor(group["clip"], squares)


def parameter_group(sae: SparseAutoencoder, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The SAE's group for UnitRowAdam; `optimizer`: the node of its architecture."""
    names, parameters = zip(*sae.named_parameters(), strict=True)
    numbers = {key: optimizer[key] for key in ("lr", "eps", "clip")}
    unclipped = [i for i, name in enumerate(names) if name in sae.unclipped]
    betas = tuple(optimizer["betas"])
    return {"params": list(parameters), **numbers, "betas": betas, "unit": [names.index("W_dec")], "unclipped": unclipped}


def clip_factor(clip: float | None, squares: Sequence[Tensor]) -> float | Tensor:
    """min(1, clip / norm) of gradients with these squared norms; a tensor, so that the host does not wait for a GPU."""
    if clip is None or not squares:
        return 1.0
    return (clip / torch.stack(list(squares)).sum().sqrt()).clamp(max=1.0)


def _numbers(group: dict[str, Any], step: int, factor: float | Tensor) -> Adam:
    beta1, beta2 = group["betas"]
    return Adam(factor, group["lr"] / (1 - beta1**step), beta1, beta2, 1 / math.sqrt(1 - beta2**step), group["eps"])


def as_rows(x: Tensor) -> Tensor:
    """A vector as a matrix of one row, as a view."""
    return x.view(-1, x.shape[-1])
