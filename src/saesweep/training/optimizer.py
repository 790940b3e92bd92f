"""Adam for N SAEs, one parameter group each, with decoder rows that stay on the unit sphere.

    g <- g - (g . w) w          for rows w of norm one: their radial part is dropped
    g <- g * min(1, clip / |g|) with the norm over the clipped parameters of the group; or with that of the step before
    w <- Adam(w, g)
    w <- w / |w|                for rows of norm one

The four are one pass over each matrix (arch/ops), which without a clip also forms the gradient, row by row. With a clip the
gradient is formed and its norm computed in a pass before, 36 bytes a parameter in place of 24. With the norm of the step before
(`clip_by_previous`) it is one pass again, which returns the norm for the next step. The first step is clipped by its own norm.
A gradient much larger than the one before is then clipped too little, and the next one too much.
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
from saesweep.arch.ops.rounded import Rounded


class UnitRowAdam(torch.optim.Optimizer):
    """Each group: params, lr, betas, eps, clip (a norm or None), clip_by_previous, and which of its params are `unit` and
    `unclipped`. The state of a parameter: step, exp_avg, exp_avg_sq; squares: with clip_by_previous, |g|^2 of its last g.

    `unit`: positions in params of the matrices whose rows have norm one; `unclipped`: of parameters without clipping.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]):
        clip = {"clip": None, "clip_by_previous": False, "unclipped": ()}
        super().__init__(groups, {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "unit": (), **clip})

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for index in range(len(self.param_groups)):
            self.step_group(index)
        return loss

    def step_sae(self, index: int, sae: SparseAutoencoder) -> None:
        """One step of an SAE's group, and the projection of its parameters onto their range."""
        self.step_group(index, sae.execution.deferred_gradients, {sae.W_enc_T: sae.execution.rounded_W})
        sae.constrain_()

    @torch.no_grad()
    def step_group(
        self, index: int, deferred: DeferredGradients | None = None, rounded: Mapping[Tensor, Rounded] | None = None
    ) -> None:
        """One step of one group. It frees its gradients and empties `deferred`, so that never those of all groups are held.

        rounded: of a parameter, the copy that is written with it.
        """
        group = self.param_groups[index]
        gradients = _gradients(group, deferred or [])
        clipped = [] if group["clip"] is None else [i for i in gradients if i not in group["unclipped"]]
        clip = clip_factor(group["clip"], self._squares(group, gradients, clipped))
        for i, grad in gradients.items():
            p = group["params"][i]
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            numbers = _numbers(group, state["step"], clip if i in clipped else 1.0)
            weight, *moments = (as_rows(tensor) for tensor in (p.detach(), state["exp_avg"], state["exp_avg_sq"]))
            norms = group["clip_by_previous"] and i in clipped
            copy = (rounded or {}).get(p)
            squares = ops_for(p).adam(weight, grad, *moments, numbers, i in group["unit"], norms, copy)
            if norms:
                state["squares"] = squares.sum(dtype=torch.float64).to(p)
            p.grad = None
        if deferred:
            deferred.clear()

    def _squares(self, group: Mapping[str, Any], gradients: dict[int, Tensor | Sums], clipped: Sequence[int]) -> list[Tensor]:
        """The squared norms to clip by: of the step before where all are known, else of these gradients, which are formed."""
        states = [self.state[group["params"][i]] for i in clipped]
        if group["clip_by_previous"] and all("squares" in state for state in states):
            return [state["squares"] for state in states]
        squares = []
        for i in clipped:
            p = group["params"][i]
            gradients[i], found = ops_for(p).grad_and_norms(gradients[i], as_rows(p.detach()), i in group["unit"])
            squares.append(found.sum(dtype=torch.float64))
        return squares


def _gradients(group: Mapping[str, Any], deferred: DeferredGradients) -> dict[int, Tensor | Sums]:
    """Each parameter's gradient as rows, by position, still deferred where it is one sum over a list."""
    assert all(any(q is p for p in group["params"]) for q, _ in deferred), "a deferred gradient is of another group"
    gradients = dict[int, Tensor | Sums]()
    for i, p in enumerate(group["params"]):
        sums = [s for q, s in deferred if q is p]
        if p.grad is None and sums:
            grad = sums[0] if len(sums) == 1 else merged(sums)
        elif p.grad is not None:
            grad = reduce(torch.add, [as_rows(p.grad), *(ops_for(p).sum_columns(*s) for s in sums)])
        else:
            continue
        gradients[i] = grad
    return gradients


def parameter_group(sae: SparseAutoencoder, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The SAE's group for UnitRowAdam; `optimizer`: the node of its architecture."""
    names, parameters = zip(*sae.named_parameters(), strict=True)
    numbers = {key: optimizer[key] for key in ("lr", "eps", "clip")}
    numbers["clip_by_previous"] = optimizer.get("clip_by_previous", False)  # absent in older configs
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
