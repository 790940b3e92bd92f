"""Norms of gradients, and Adam's update: a program per row, which for a gradient that is a `Sums` forms it first, and for W_enc
writes the copy that the selection of candidates reads."""
import math

import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops import plain
from saesweep.arch.ops.entries import Adam, Sums
from saesweep.arch.ops.gpu.rounding import store_rounded
from saesweep.arch.ops.gpu.rows import block, compiled, load_row
from saesweep.arch.ops.gpu.sums import segment_sum, with_spans
from saesweep.arch.ops.rounded import Copy, Rounded, changed

PIECE = 1024  # of a vector, which has one row


@compiled
def _tangent(g, w, UNIT: tl.constexpr):
    if UNIT:
        g -= tl.sum(g * w) * w
    return g


@compiled
def _row_squares(grad, weight, out, d, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = _tangent(load_row(grad, r, d, lanes), load_row(weight, r, d, lanes), UNIT)
    tl.store(out + r, tl.sum(g * g))


@compiled
def _sum_columns_and_squares(
    order, starts, rows, weights, matrix, spans, weight, out, squares, d, UNIT: tl.constexpr, BLOCK: tl.constexpr
):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = segment_sum(order, starts, rows, weights, matrix, spans, c, d, lanes, BLOCK)
    tl.store(out + c * d + lanes, g, mask=lanes < d)
    g = _tangent(g, load_row(weight, c, d, lanes), UNIT)
    tl.store(squares + c, tl.sum(g * g))


def grad_and_norms(grad: Tensor | Sums, weight: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    (count, d), squares = weight.shape, weight.new_empty(len(weight))
    if isinstance(grad, Sums):
        sums, grad = with_spans(grad), torch.empty_like(weight)
        _sum_columns_and_squares[(count,)](*sums, weight, grad, squares, d, UNIT=unit, **block(d))
    elif count == 1:  # a vector would be one program
        return plain.grad_and_norms(grad, weight, unit)
    else:
        _row_squares[(count,)](grad.contiguous(), weight, squares, d, UNIT=unit, **block(d))
    return grad, squares


@compiled
def _update(
    g, weight, mean, square, squares, low, low_norms, share, r, d, lanes, clip, step_size, beta1, beta2, unbias, eps,
    UNIT: tl.constexpr, MEAN: tl.constexpr,
):
    at = r * d + lanes
    w = load_row(weight, r, d, lanes)
    g = _tangent(g, w, UNIT)
    if squares is not None:
        tl.store(squares + r, tl.sum(g * g))
    g = g * tl.load(clip)
    v = beta2 * load_row(square, r, d, lanes) + (1 - beta2) * g * g
    tl.store(square + at, v, mask=lanes < d)
    if MEAN:
        g = beta1 * load_row(mean, r, d, lanes) + (1 - beta1) * g
        tl.store(mean + at, g, mask=lanes < d)
    w -= tl.load(step_size) * g / (tl.sqrt(v) * tl.load(unbias) + eps)
    if UNIT:
        w = w / tl.sqrt(tl.sum(w * w))
    tl.store(weight + at, w, mask=lanes < d)
    if low is not None:
        store_rounded(w, share, low, low_norms, r, d, lanes)


@compiled
def _adam(
    grad, weight, mean, square, squares, low, low_norms, share, d, clip, step_size, beta1, beta2, unbias, eps,
    UNIT: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = load_row(grad, r, d, lanes)
    _update(g, weight, mean, square, squares, low, low_norms, share, r, d, lanes, clip, step_size, beta1, beta2, unbias, eps,
            UNIT, MEAN)


@compiled
def _adam_sums(
    order, starts, rows, weights, matrix, spans, weight, mean, square, squares, low, low_norms, share, d, clip, step_size,
    beta1, beta2, unbias, eps, UNIT: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = segment_sum(order, starts, rows, weights, matrix, spans, c, d, lanes, BLOCK)
    _update(g, weight, mean, square, squares, low, low_norms, share, c, d, lanes, clip, step_size, beta1, beta2, unbias, eps,
            UNIT, MEAN)


def adam(
    weight: Tensor, grad: Tensor | Sums, mean: Tensor, square: Tensor, numbers: Adam, unit: bool, norms: bool = False,
    rounded_W: Rounded | None = None,
) -> Tensor | None:
    matrix, copy = weight, _copy(weight, rounded_W)
    if len(weight) == 1 and isinstance(grad, Tensor) and not unit:  # a vector, cut into rows
        weight, grad, mean, square = (x.view(-1, math.gcd(x.shape[1], PIECE)) for x in (weight, grad, mean, square))
    d = weight.shape[1]
    clip, step_size, beta1, beta2, unbias, eps = numbers
    clip, step_size, unbias = (_scalar(number, weight) for number in (clip, step_size, unbias))
    squares = weight.new_empty(len(weight)) if norms else None
    rest = (weight, mean, square, squares, *(copy or 3 * (None,)), d, clip, step_size, beta1, beta2, unbias, eps)
    how = {"UNIT": unit, "MEAN": beta1 != 0, **block(d)}
    if isinstance(grad, Sums):
        _adam_sums[(len(weight),)](*with_spans(grad), *rest, **how)
    else:
        _adam[(len(weight),)](grad.contiguous(), *rest, **how)
    changed(matrix)
    if copy is not None and rounded_W is not None:
        bits, *others = copy
        rounded_W.keep(matrix, Copy(bits.view(torch.bfloat16), *others))
    return squares


def _scalar(number: float | Tensor, like: Tensor) -> Tensor:
    return number.float() if isinstance(number, Tensor) else like.new_full((), number)


def _copy(weight: Tensor, rounded_W: Rounded | None) -> tuple[Tensor, ...] | None:
    """Where the kernel writes the copy: bits, norms, and the share; in the place of the last one. None if nobody reads it."""
    if rounded_W is None or rounded_W.share is None:
        return None
    old = rounded_W.copy
    if old is None or old.low.shape != weight.shape or old.low.device != weight.device:
        return torch.empty_like(weight, dtype=torch.int16), weight.new_empty(len(weight)), rounded_W.share.to(weight)
    return old.low.view(torch.int16), old.norms, rounded_W.share
