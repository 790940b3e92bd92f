"""By PyTorch alone: the definition of every operation."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.arch import ops
from saesweep.arch.ops import Adam, Chosen, Sums, starts_of


def kept(pi: Float[Tensor, "batch d_sae"], above: Float[Tensor, " d_sae"] | None, k: int) -> Bool[Tensor, "batch d_sae"]:
    """What lies above its bound, or else the k largest of each row."""
    if above is not None:
        return pi > above
    return torch.zeros_like(pi, dtype=torch.bool).scatter_(1, pi.topk(k, sorted=False).indices, True)


@torch.no_grad()
def choose(u: Tensor, W_enc_T: Tensor, b_enc: Tensor, above: Tensor | None, k: int) -> Chosen | None:
    pi = F.linear(u, W_enc_T, b_enc)
    mask = kept(pi, above, k)
    if ops.DENSE_BELOW * int(mask.sum()) > mask.numel():
        return None
    rows, columns = mask.nonzero(as_tuple=True)
    return starts_of(mask.sum(1)), rows, columns, pi[rows, columns]


def sort_by_column(columns: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    found, order = columns.sort(stable=True)
    return order, torch.searchsorted(found, torch.arange(d_sae + 1, device=columns.device))


def reconstruct(
    starts: Tensor, rows: Tensor, columns: Tensor, f: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    residual = F.embedding_bag(columns, W_dec, starts[:-1], mode="sum", per_sample_weights=f) + b_dec - x
    return residual, residual.square().sum(1), (residual[rows] * W_dec[columns]).sum(1)


def sum_columns(order: Tensor, starts: Tensor, rows: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    return F.embedding_bag(rows[order], matrix, starts[:-1], mode="sum", per_sample_weights=weights[order])


def fired(columns: Tensor, values: Tensor, d_sae: int) -> Tensor:
    times = torch.zeros(d_sae, dtype=torch.int32, device=columns.device)
    return times.index_add_(0, columns, (values > 0).int()) > 0


def tangent(grad: Tensor, weight: Tensor) -> Tensor:
    """The rows of the gradient without their part along the rows of the weight, which have norm one."""
    return torch.addcmul(grad, (grad * weight).sum(1, keepdim=True), weight, value=-1)


def formed(grad: Tensor | Sums) -> Tensor:
    return sum_columns(*grad) if isinstance(grad, Sums) else grad


def measured(grad: Tensor | Sums, weight: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    grad = formed(grad)
    return grad, (tangent(grad, weight) if unit else grad).square().sum(1)


def adam(weight: Tensor, grad: Tensor | Sums, mean: Tensor, square: Tensor, numbers: Adam, unit: bool) -> None:
    grad = formed(grad)
    grad = (tangent(grad, weight) if unit else grad) * numbers.clip
    mean = mean.lerp_(grad, 1 - numbers.beta1) if numbers.beta1 else grad
    square.mul_(numbers.beta2).addcmul_(grad, grad, value=1 - numbers.beta2)
    weight.addcdiv_(mean, square.sqrt() * numbers.unbias + numbers.eps, value=-numbers.step_size)
    if unit:
        weight /= weight.norm(dim=1, keepdim=True)
