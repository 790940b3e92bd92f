"""Norms of gradients, and Adam's update: a program per row, which for a gradient that is a `Sums` forms it first."""
import math

import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops import plain
from saesweep.arch.ops.entries import Adam, Sums
from saesweep.arch.ops.gpu.rows import block, compiled, load_row
from saesweep.arch.ops.gpu.sums import segment_sum, with_spans

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
    g, weight, mean, square, squares, r, d, lanes, clip, step_size, beta1, beta2, unbias, eps,
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
    w -= step_size * g / (tl.sqrt(v) * unbias + eps)
    if UNIT:
        w = w / tl.sqrt(tl.sum(w * w))
    tl.store(weight + at, w, mask=lanes < d)


@compiled
def _adam(
    grad, weight, mean, square, squares, d, clip, step_size, beta1, beta2, unbias, eps,
    UNIT: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = load_row(grad, r, d, lanes)
    _update(g, weight, mean, square, squares, r, d, lanes, clip, step_size, beta1, beta2, unbias, eps, UNIT, MEAN)


@compiled
def _adam_sums(
    order, starts, rows, weights, matrix, spans, weight, mean, square, squares, d, clip, step_size, beta1, beta2, unbias, eps,
    UNIT: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = segment_sum(order, starts, rows, weights, matrix, spans, c, d, lanes, BLOCK)
    _update(g, weight, mean, square, squares, c, d, lanes, clip, step_size, beta1, beta2, unbias, eps, UNIT, MEAN)


def adam(
    weight: Tensor, grad: Tensor | Sums, mean: Tensor, square: Tensor, numbers: Adam, unit: bool, norms: bool = False
) -> Tensor | None:
    if len(weight) == 1 and isinstance(grad, Tensor) and not unit:  # a vector, cut into rows
        weight, grad, mean, square = (x.view(-1, math.gcd(x.shape[1], PIECE)) for x in (weight, grad, mean, square))
    d = weight.shape[1]
    clip = numbers.clip if isinstance(numbers.clip, Tensor) else weight.new_full((), numbers.clip)
    squares = weight.new_empty(len(weight)) if norms else None
    rest = (weight, mean, square, squares, d, clip.float(), *numbers[1:])
    how = {"UNIT": unit, "MEAN": numbers.beta1 != 0, **block(d)}
    if isinstance(grad, Sums):
        _adam_sums[(len(weight),)](*with_spans(grad), *rest, **how)
    else:
        _adam[(len(weight),)](grad.contiguous(), *rest, **how)
    return squares
