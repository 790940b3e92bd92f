"""Products and weighted sums of rows over the entries of a list."""
import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops.gpu.rows import TOGETHER, block, compiled, load_row, load_rows


@compiled
def _products_of(own, columns, start, end, matrix, out, d, lanes):
    for first in range(start, end, TOGETHER):
        e = first + tl.arange(0, TOGETHER)
        rows = load_rows(matrix, tl.load(columns + e, mask=e < end, other=0), e < end, d, lanes)
        tl.store(out + e, tl.sum(own[None, :] * rows, 1), mask=e < end)


@compiled
def _products(starts, columns, left, right, out, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    _products_of(load_row(left, r, d, lanes), columns, tl.load(starts + r), tl.load(starts + r + 1), right, out, d, lanes)


def products(starts: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left[row] . right[column] for every entry."""
    out = left.new_empty(len(columns))
    _products[(len(left),)](starts, columns, left.contiguous(), right, out, left.shape[1], **block(left.shape[1]))
    return out


@compiled
def _reconstruct(starts, columns, f, W_dec, b_dec, x, residual, squares, products, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    start, end = tl.load(starts + r), tl.load(starts + r + 1)
    total = load_row(b_dec, 0, d, lanes) - load_row(x, r, d, lanes)
    for first in range(start, end, TOGETHER):
        e = first + tl.arange(0, TOGETHER)
        weight = tl.load(f + e, mask=e < end, other=0.0)
        rows = load_rows(W_dec, tl.load(columns + e, mask=e < end, other=0), weight != 0.0, d, lanes)
        total += tl.sum(weight[:, None] * rows, 0)
    tl.store(residual + r * d + lanes, total, mask=lanes < d)
    tl.store(squares + r, tl.sum(total * total))
    _products_of(total, columns, start, end, W_dec, products, d, lanes)  # while the rows of W_dec are in the cache


def reconstruct(
    starts: Tensor, rows: Tensor, columns: Tensor, f: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    (batch, d), inputs = x.shape, (starts, columns, f.contiguous(), W_dec, b_dec, x.contiguous())
    residual, squares, products = torch.empty_like(x), x.new_empty(batch), torch.empty_like(f)
    _reconstruct[(batch,)](*inputs, residual, squares, products, d, **block(d))
    return residual, squares, products


@compiled
def segment_sum(order, starts, rows, weights, matrix, c, d, lanes, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    end = tl.load(starts + c + 1)
    for first in range(tl.load(starts + c), end, TOGETHER):
        i = first + tl.arange(0, TOGETHER)
        e = tl.load(order + i, mask=i < end, other=0)
        weight = tl.load(weights + e, mask=i < end, other=0.0)
        total += tl.sum(weight[:, None] * load_rows(matrix, tl.load(rows + e), weight != 0.0, d, lanes), 0)
    return total


@compiled
def _sum_columns(order, starts, rows, weights, matrix, out, d, BLOCK: tl.constexpr):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    total = segment_sum(order, starts, rows, weights, matrix, c, d, lanes, BLOCK)
    tl.store(out + c * d + lanes, total, mask=lanes < d)


def sum_columns(order: Tensor, starts: Tensor, rows: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    count, d = len(starts) - 1, matrix.shape[1]
    out = matrix.new_empty(count, d)
    _sum_columns[(count,)](order, starts, rows, weights.contiguous(), matrix.contiguous(), out, d, **block(d))
    return out
