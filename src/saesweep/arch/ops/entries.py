"""What the operations over a list of entries take and give."""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A list costs more per entry than a dense product: with less than this many latents per active latent, dense is faster.
# Measured on 2 cores without AMX: equal at 7 to 8 for widths of 4,096 and 16,384, for ReLU, Gated and TopK.
DENSE_BELOW = 8
# Counted for an H100 at d_in 2,304, with dense products in TF32: equal at about 150. python -m benchmarks.gpu measures it.
DENSE_BELOW_ON_GPU = 128
Chosen = tuple[Tensor, Tensor, Tensor, Tensor]  # where rows start; row, column and value of each entry


def most_entries(batch: int, d_sae: int) -> int:
    """Of a list on a GPU: with more, dense products are faster."""
    return batch * d_sae // max(1, DENSE_BELOW_ON_GPU)


class Rough(NamedTuple):
    """score [batch, d_sae] ~ u W_enc / (scale_u scale_w), and what its error is proportional to."""

    score: Tensor
    scale_u: Tensor
    scale_w: Tensor
    norm_u: Tensor
    norm_w: Tensor
    error_u: float  # of a product by scale_u norm_w, and
    error_w: float  # by scale_w norm_u; of 3 standard deviations, or the most there can be


def coordinate_share(u: Tensor) -> Tensor:
    """[batch, d] -> [d]: the root of each coordinate's rms, relative to their mean.

    Some coordinates of a language model's activations are far larger than the others; u over it and W_enc times it are even.
    """
    rms = u.square().mean(0).sqrt()
    return (rms / rms.mean()).clamp(1e-4, 1e4).nan_to_num(1.0).sqrt()


class Adam(NamedTuple):
    """The scalars of one step: step_size = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t); clip multiplies gradients.

    On a GPU those that differ between steps are tensors: the host does not wait for clip, and a CUDA graph reads the others.
    """

    clip: float | Tensor
    step_size: float | Tensor
    beta1: float
    beta2: float
    unbias: float | Tensor
    eps: float


class Sums(NamedTuple):
    """A gradient that is not formed yet: row c is the sum of weight * matrix[row] over the entries of column c."""

    order: Tensor  # the entries sorted by column; starts: where each column starts in it
    starts: Tensor
    rows: Tensor
    weights: Tensor
    matrix: Tensor


def merged(parts: Sequence[Sums]) -> Sums:
    """One list for several of the same columns; within a column, the entries of one list come after those of the one before."""
    sizes, heights = [len(part.order) for part in parts], [len(part.matrix) for part in parts]
    ends = [torch.cat([part.starts, part.starts.new_full((1,), size)]) for part, size in zip(parts, sizes, strict=True)]
    order, start = parts[0].order.new_empty(sum(sizes)), torch.stack(ends).sum(0)[:-1]  # the last column: room that is not used
    entries = 0
    for part, size, end in zip(parts, sizes, ends, strict=True):
        places = torch.arange(size, device=start.device)
        columns = torch.searchsorted(part.starts[1:], places, right=True)
        order[(start - end[:-1])[columns] + places] = part.order + entries
        start, entries = start + end.diff(), entries + size
    rows = [part.rows + sum(heights[:i]) for i, part in enumerate(parts)]
    starts = torch.stack([part.starts for part in parts]).sum(0)
    weights, matrices = torch.cat([part.weights for part in parts]), torch.cat([part.matrix for part in parts])
    return Sums(order, starts, torch.cat(rows), weights, matrices)


DeferredGradients = list[tuple[Tensor, Sums]]  # parameters, and gradients or parts of gradients


def starts_of(counts: Tensor) -> Tensor:
    """[n] -> [n + 1]: where each of n runs starts, and where the last one ends."""
    starts = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=starts[1:])
    return starts
