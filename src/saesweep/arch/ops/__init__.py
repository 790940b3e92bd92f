"""The few operations over a list of entries that take all the time, three times over with one result.

    plain   PyTorch alone: the definition, and what fp64 and other devices take
    cpu     fp32 on a CPU: numba, entries chosen by an int8, int16 or fp32 product
    gpu     fp32 on CUDA: Triton, entries chosen by a bf16 product

Each module has

    choose(u, W_enc_T, b_enc, above, k)                  the entries of pi = u W_enc + b_enc above their bound, or else the
                                                         k largest of each row: (starts, rows, columns, values), or None
                                                         where they are too many for a list to pay; an entry whose value
                                                         is 0 is listed, but not kept
    sort_by_column(columns, d_sae)                       (order, starts) that sort the list by column
    reconstruct(starts, rows, columns, f, W_dec, b_dec, x)
                                                         the residual f W_dec + b_dec - x, its rows' squared norms, and
                                                         residual[row] . W_dec[column]
    sum_columns(order, starts, rows, weights, matrix)    for every column, the sum of weight * matrix[row]
    fired(columns, values, d_sae)                        which columns have a value above 0
    measured(grad, weight, unit)                         the gradient, formed, and its rows' squared norms; `unit`: of their
                                                         part that is tangent to the weight's rows, which have norm one
    adam(weight, grad, mean, square, numbers, unit)      one Adam step in place (optimizer.py); without beta1 the mean is
                                                         the gradient, and is left alone

A gradient is a tensor or, where its rows are to be formed one at a time and never all be there, `Sums`.

A list is in row-major order; entry e belongs to row r where starts[r] <= e < starts[r + 1].
"""
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

# A list costs more per entry than a dense product does: with fewer latents per active one than this, dense is faster.
# Measured on 2 cores without AMX: level at 7 to 8 for widths of 4,096 and 16,384, ReLU, Gated and TopK alike.
DENSE_BELOW = 8
Chosen = tuple[Tensor, Tensor, Tensor, Tensor]  # where rows start; row, column and value of each entry


class Adam(NamedTuple):
    """The scalars of one step: step_size = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t); gradients are times clip."""

    clip: float | Tensor  # a tensor on a GPU: the host need not know it
    step_size: float
    beta1: float
    beta2: float
    unbias: float
    eps: float


class Sums(NamedTuple):
    """A gradient that is not formed: row c is the sum of weight * matrix[row] over the entries of column c."""

    order: Tensor  # with starts: the entries column by column
    starts: Tensor
    rows: Tensor
    weights: Tensor
    matrix: Tensor


DeferredGradients = list[tuple[Tensor, Sums]]  # gradients, or parts of them, and the parameters they are of


def ops_for(x: Tensor) -> ModuleType:
    """The module for tensors such as this one."""
    from saesweep.arch.ops import plain

    if x.dtype != torch.float32:
        return plain
    if x.device.type == "cpu":
        from saesweep.arch.ops import cpu

        return cpu
    if x.device.type == "cuda":
        from saesweep.arch.ops import gpu

        return gpu
    return plain


def starts_of(counts: Tensor) -> Tensor:
    """[n] -> [n + 1]: where each of n runs begins, and where the last one ends."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))
