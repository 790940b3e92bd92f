"""What the operations over a list of entries take and give."""
from typing import NamedTuple

import torch
from torch import Tensor

# A list costs more per entry than a dense product: with less than this many latents per active latent, dense is faster.
# Measured on 2 cores without AMX: equal at 7 to 8 for widths of 4,096 and 16,384, for ReLU, Gated and TopK.
DENSE_BELOW = 8
Chosen = tuple[Tensor, Tensor, Tensor, Tensor]  # where rows start; row, column and value of each entry


class Rough(NamedTuple):
    """score [batch, d_sae] ~ u W_enc / (scale_u scale_w), and what its error is proportional to."""

    score: Tensor
    scale_u: Tensor
    scale_w: Tensor
    norm_u: Tensor
    norm_w: Tensor
    error_u: float  # of a product by scale_u norm_w, and
    error_w: float  # by scale_w norm_u; of 3 standard deviations, or the most there can be


class Adam(NamedTuple):
    """The scalars of one step: step_size = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t); clip multiplies gradients."""

    clip: float | Tensor  # a tensor on a GPU, so that the host does not wait for it
    step_size: float
    beta1: float
    beta2: float
    unbias: float
    eps: float


class Sums(NamedTuple):
    """A gradient that is not formed yet: row c is the sum of weight * matrix[row] over the entries of column c."""

    order: Tensor  # the entries sorted by column; starts: where each column starts in it
    starts: Tensor
    rows: Tensor
    weights: Tensor
    matrix: Tensor


DeferredGradients = list[tuple[Tensor, Sums]]  # parameters, and gradients or parts of gradients


def starts_of(counts: Tensor) -> Tensor:
    """[n] -> [n + 1]: where each of n runs starts, and where the last one ends."""
    starts = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=starts[1:])
    return starts
