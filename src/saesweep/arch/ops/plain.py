"""The definition of every operation, in PyTorch alone."""
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saesweep.arch.ops import entries
from saesweep.arch.ops.entries import Adam, Chosen, Sums, starts_of
from saesweep.arch.ops.room import Room
from saesweep.arch.ops.rounded import Rounded


def kept(pi: Float[Tensor, "batch d_sae"], above: Float[Tensor, " d_sae"] | None, k: int) -> Bool[Tensor, "batch d_sae"]:
    """Mask of the entries above their bound, or else of the k largest of each row."""
    if above is not None:
        return pi > above
    return torch.zeros_like(pi, dtype=torch.bool).scatter_(1, pi.topk(k, sorted=False).indices, True)


@torch.no_grad()
def choose(
    u: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"],
    above: Float[Tensor, " d_sae"] | None, k: int, sure: bool = True, rounded_W: Rounded | None = None,
    room: Room | None = None,
) -> Chosen | None:
    pi = F.linear(u, W_enc_T, b_enc)
    mask = kept(pi, above, k)
    if entries.DENSE_BELOW * int(mask.sum()) > mask.numel():
        return None
    rows, columns = mask.nonzero(as_tuple=True)
    return starts_of(mask.sum(1)), rows, columns, pi[rows, columns]


def sort_by_column(columns: Int[Tensor, " n"], d_sae: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " {d_sae}+1"]]:
    found, order = columns.sort(stable=True)
    return order, torch.searchsorted(found, torch.arange(d_sae + 1, device=columns.device))


def reconstruct(
    starts: Int[Tensor, " batch_1"], rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], f: Float[Tensor, " n"],
    W_dec: Float[Tensor, "d_sae d_in"], b_dec: Float[Tensor, " d_in"], x: Float[Tensor, "batch d_in"],
) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, " batch"], Float[Tensor, " n"]]:
    residual = F.embedding_bag(columns, W_dec, starts[:-1], mode="sum", per_sample_weights=f) + b_dec - x
    return residual, residual.square().sum(1), (residual[rows] * W_dec[columns]).sum(1)


def sum_columns(
    order: Int[Tensor, " n"], starts: Int[Tensor, " d_sae_1"], rows: Int[Tensor, " n"], weights: Float[Tensor, " n"],
    matrix: Float[Tensor, "batch d"],
) -> Float[Tensor, "d_sae_1-1 d"]:
    return F.embedding_bag(rows[order], matrix, starts[:-1], mode="sum", per_sample_weights=weights[order])


def fired(columns: Int[Tensor, " n"], values: Float[Tensor, " n"], d_sae: int) -> Bool[Tensor, " {d_sae}"]:
    times = torch.zeros(d_sae, dtype=torch.int32, device=columns.device)
    return times.index_add_(0, columns, (values > 0).int()) > 0


def tangent(grad: Float[Tensor, "rows d"], weight: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    """The rows of the gradient minus their projection on the rows of the weight, which have norm one."""
    return torch.addcmul(grad, (grad * weight).sum(1, keepdim=True), weight, value=-1)


def formed(grad: Tensor | Sums) -> Tensor:
    return sum_columns(*grad) if isinstance(grad, Sums) else grad


def grad_and_norms(
    grad: Float[Tensor, "rows d"] | Sums, weight: Float[Tensor, "rows d"], unit: bool
) -> tuple[Float[Tensor, "rows d"], Float[Tensor, " rows"]]:
    grad = formed(grad)
    return grad, (tangent(grad, weight) if unit else grad).square().sum(1)


def adam(
    weight: Float[Tensor, "*shape"], grad: Float[Tensor, "*shape"] | Sums, mean: Float[Tensor, "*shape"],
    square: Float[Tensor, "*shape"], numbers: Adam, unit: bool, norms: bool = False,
    rounded_W: Rounded | None = None,
) -> Float[Tensor, " rows"] | None:
    grad, squares = grad_and_norms(grad, weight, unit) if norms else (formed(grad), None)
    grad = (tangent(grad, weight) if unit else grad) * numbers.clip
    mean = mean.lerp_(grad, 1 - numbers.beta1) if numbers.beta1 else grad
    square.mul_(numbers.beta2).addcmul_(grad, grad, value=1 - numbers.beta2)
    weight -= numbers.step_size * mean / (square.sqrt() * numbers.unbias + numbers.eps)
    if unit:
        weight /= weight.norm(dim=1, keepdim=True)
    return squares
