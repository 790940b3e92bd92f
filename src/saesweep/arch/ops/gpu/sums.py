"""Products and weighted sums of rows over the entries of a list."""
import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops.entries import Sums
from saesweep.arch.ops.gpu.rows import TOGETHER, block, compiled, load_row, load_rows

SPAN = tl.constexpr(256)  # entries of a long column that a program of their own adds up


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
    residual, squares, products = torch.empty_like(x), x.new_empty(batch), torch.zeros_like(f)  # of no row: 0
    _reconstruct[(batch,)](*inputs, residual, squares, products, d, **block(d))
    return residual, squares, products


@compiled
def _gathered(order, rows, weights, matrix, start, end, d, lanes, BLOCK: tl.constexpr):
    """Sum of weight * matrix[row] over the entries from start to end of the order."""
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(start, end, TOGETHER):
        i = first + tl.arange(0, TOGETHER)
        e = tl.load(order + i, mask=i < end, other=0)
        weight = tl.load(weights + e, mask=i < end, other=0.0)
        total += tl.sum(weight[:, None] * load_rows(matrix, tl.load(rows + e), weight != 0.0, d, lanes), 0)
    return total


@compiled
def segment_sum(order, starts, rows, weights, matrix, spans, c, d, lanes, BLOCK: tl.constexpr):
    """The sum of column c, of which `spans` has whole spans."""
    start, end = tl.load(starts + c), tl.load(starts + c + 1)
    first = tl.minimum((start + SPAN - 1) // SPAN * SPAN, end)
    last = tl.maximum(end // SPAN * SPAN, first)
    total = _gathered(order, rows, weights, matrix, start, first, d, lanes, BLOCK)
    for span in range(first // SPAN, last // SPAN):
        total += load_row(spans, span, d, lanes)
    return total + _gathered(order, rows, weights, matrix, last, end, d, lanes, BLOCK)


@compiled
def _sum_spans(order, rows, weights, matrix, within, out, d, BLOCK: tl.constexpr):
    span = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    if tl.load(within + span) != 0:
        total = _gathered(order, rows, weights, matrix, span * SPAN, (span + 1) * SPAN, d, lanes, BLOCK)
        tl.store(out + span * d + lanes, total, mask=lanes < d)


def with_spans(sums: Sums) -> tuple[Tensor, ...]:
    """The sums for a kernel, and [n / SPAN, d]: of each SPAN entries of the order that are of one column, their sum.

    So a latent that is active on every token is not one long program.
    """
    order, starts, rows, weights, matrix = (tensor.contiguous() for tensor in sums)
    firsts = torch.arange(0, len(order) // SPAN.value * SPAN.value, SPAN.value, device=order.device)
    columns = torch.searchsorted(starts, torch.stack([firsts, firsts + SPAN.value - 1]), right=True)
    within, out = (columns[0] == columns[1]).long(), matrix.new_empty(len(firsts), matrix.shape[1])
    if len(firsts) > 0:
        _sum_spans[(len(firsts),)](order, rows, weights, matrix, within, out, matrix.shape[1], **block(matrix.shape[1]))
    return order, starts, rows, weights, matrix, out


@compiled
def _sum_columns(order, starts, rows, weights, matrix, spans, out, d, BLOCK: tl.constexpr):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    total = segment_sum(order, starts, rows, weights, matrix, spans, c, d, lanes, BLOCK)
    tl.store(out + c * d + lanes, total, mask=lanes < d)


def sum_columns(order: Tensor, starts: Tensor, rows: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    count, d = len(starts) - 1, matrix.shape[1]
    out = matrix.new_empty(count, d)
    _sum_columns[(count,)](*with_spans(Sums(order, starts, rows, weights, matrix)), out, d, **block(d))
    return out
