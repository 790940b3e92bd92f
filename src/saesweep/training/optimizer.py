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

Rates = Mapping[int, tuple[float | Tensor, float | Tensor]]  # by position, step_size and unbias of ops' Adam
APART = 4  # numbers from one rate to the next on a GPU: kernels are compiled for addresses that 16 bytes divide


class RateTable:
    """The rates of a group on a GPU, always in the same memory, so that a CUDA graph reads those of each step."""

    def __init__(self, parameters: Sequence[Tensor]):
        self._there = parameters[0].new_zeros(len(parameters), 2, APART)
        self.rates: Rates = {i: (pair[0], pair[1]) for i, pair in enumerate(self._there[..., 0].unbind())}

    def fill(self, rates: Mapping[int, tuple[float, float]]) -> None:
        """The host does not wait."""
        here = torch.zeros(self._there.shape, dtype=self._there.dtype, pin_memory=True)
        here[..., 0] = torch.tensor([rates.get(i, (0.0, 0.0)) for i in self.rates], dtype=here.dtype)
        self._there.copy_(here, non_blocking=True)


class UnitRowAdam(torch.optim.Optimizer):
    """Each group: params, lr, betas, eps, clip (a norm or None), clip_by_previous, and which of its params are `unit` and
    `unclipped`. The state of a parameter: step, exp_avg, exp_avg_sq; squares: with clip_by_previous, |g|^2 of its last g.

    `unit`: positions in params of the matrices whose rows have norm one; `unclipped`: of parameters without clipping.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]):
        clip = {"clip": None, "clip_by_previous": False, "unclipped": ()}
        super().__init__(groups, {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "unit": (), **clip})
        self._tables: dict[int, RateTable] = {}  # by group

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for index in range(len(self.param_groups)):
            self.step_group(index)
        return loss

    def step_sae(self, index: int, sae: SparseAutoencoder, begun: bool = False) -> list[int]:
        """One step of an SAE's group, and the projection of its parameters onto their range; as `step_group`."""
        moved = self.step_group(index, sae.execution.deferred_gradients, {sae.W_enc_T: sae.execution.rounded_W}, begun)
        sae.constrain_()
        return moved

    @torch.no_grad()
    def step_group(
        self, index: int, deferred: DeferredGradients | None = None, rounded: Mapping[Tensor, Rounded] | None = None,
        begun: bool = False,
    ) -> list[int]:
        """One step of one group; returns the positions of the parameters that had a gradient. It frees its gradients and
        empties `deferred`, so that never those of all groups are held.

        rounded: of a parameter, the copy that is written with it. begun: `begin_step` is called for it, on a GPU.
        """
        group = self.param_groups[index]
        gradients = _gradients(group, deferred or [])
        clipped = [] if group["clip"] is None else [i for i in gradients if i not in group["unclipped"]]
        clip = clip_factor(group["clip"], self._squares(group, gradients, clipped))
        rates = self._tables[index].rates if begun else self.begin_step(index, gradients)
        for i, grad in gradients.items():
            p, (step_size, unbias), (beta1, beta2) = group["params"][i], rates[i], group["betas"]
            numbers = Adam(clip if i in clipped else 1.0, step_size, beta1, beta2, unbias, group["eps"])
            state = self.state[p]
            weight, *moments = (as_rows(tensor) for tensor in (p.detach(), state["exp_avg"], state["exp_avg_sq"]))
            norms = group["clip_by_previous"] and i in clipped
            copy = (rounded or {}).get(p)
            squares = ops_for(p).adam(weight, grad, *moments, numbers, i in group["unit"], norms, copy)
            if norms:
                _set(state, "squares", squares.sum(dtype=torch.float64).to(p))
            p.grad = None
        if deferred:
            deferred.clear()
        return list(gradients)

    @torch.no_grad()
    def begin_step(self, index: int, positions: Iterable[int]) -> Rates:
        """Count a step of the parameters at these positions, which makes the moments of new ones; returns its rates, on a GPU
        in the memory of those before."""
        group, rates = self.param_groups[index], dict[int, tuple[float, float]]()
        beta1, beta2 = group["betas"]
        for i in positions:
            p = group["params"][i]
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            rates[i] = group["lr"] / (1 - beta1 ** state["step"]), 1 / math.sqrt(1 - beta2 ** state["step"])
        if not group["params"][0].is_cuda:
            return rates
        if index not in self._tables:
            self._tables[index] = RateTable(group["params"])
        self._tables[index].fill(rates)
        return self._tables[index].rates

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


def _set(state: dict[str, Any], key: str, value: Tensor) -> None:
    """In the memory of the one before, where a CUDA graph reads it."""
    if key in state:
        state[key].copy_(value)
    else:
        state[key] = value


def as_rows(x: Tensor) -> Tensor:
    """A vector as a matrix of one row, as a view."""
    return x.view(-1, x.shape[-1])
