"""fp32 on CUDA: Triton's kernels, a program per token or per latent, and entries chosen in two stages.

A product in bf16 ranks all d_sae latents; its error is below 2^-7 |u| |w|, mostly far below. Every latent this close to
being chosen is a candidate, whose pre-activation is then computed in fp32. The k largest are taken from k + k / 4 + 8
candidates per token, so that no size depends on the data and the host never waits. Candidates for a bound are counted, for
which the host waits, and all of them are listed; those that are below the bound have the value 0. A list that is `sure` is
not made: dense products are fast here.

Rows are gathered four at a time, so that several loads are in flight; a thread holds eight numbers of each.

TRITON_INTERPRET=1 runs the kernels without a GPU, on CPU tensors: that is how they are tested.
"""
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops import entries, plain
from saesweep.arch.ops.entries import Adam, Chosen, Sums, starts_of

ROUNDING = 2.0**-7
SCAN = 1024  # latents per block of a scan
TOGETHER = tl.constexpr(4)  # rows per gather
sort_by_column, fired = plain.sort_by_column, plain.fired


@torch.no_grad()
def choose(
    u: Tensor, W_enc_T: Tensor, b_enc: Tensor, above: Tensor | None, k: int, sure: bool = False
) -> Chosen | None:
    batch, d_sae = len(u), len(W_enc_T)
    if sure or (above is None and entries.DENSE_BELOW * k > d_sae):
        return None
    rough = torch.addmm(b_enc.bfloat16(), u.bfloat16(), W_enc_T.bfloat16().T)
    if above is None:
        return _largest(rough, u, W_enc_T, b_enc, k)
    near = (rough, above.contiguous(), ROUNDING * u.norm(dim=1), W_enc_T.norm(dim=1))
    counts = torch.empty(batch, dtype=torch.int64, device=u.device)
    _count[(batch,)](*near, counts, d_sae, BLOCK=SCAN)
    starts = starts_of(counts)
    n = int(starts[-1])
    if entries.DENSE_BELOW * n > batch * d_sae:
        return None
    rows, columns = counts.new_empty(n), counts.new_empty(n)
    _list[(batch,)](*near, starts, rows, columns, d_sae, BLOCK=SCAN)
    pi = products(starts, columns, u, W_enc_T) + b_enc[columns]
    return starts, rows, columns, torch.where(pi > above[columns], pi, 0.0)


def _largest(rough: Tensor, u: Tensor, W_enc_T: Tensor, b_enc: Tensor, k: int) -> Chosen:
    batch, d_sae = rough.shape
    candidates = min(d_sae, k + k // 4 + 8)
    columns = rough.topk(candidates, sorted=False).indices
    starts = torch.arange(0, batch * candidates + 1, candidates, device=u.device)
    pi = (products(starts, columns.flatten(), u, W_enc_T) + b_enc[columns.flatten()]).view(batch, candidates)
    best = pi.topk(k, sorted=False)
    rows = torch.arange(batch, device=u.device).repeat_interleave(k)
    starts = torch.arange(0, batch * k + 1, k, device=u.device)
    return starts, rows, columns.gather(1, best.indices).flatten(), best.values.flatten()


def compiled(function: Callable) -> Any:  # indexed by its grid
    return triton.jit(inspect.unwrap(function))  # without a runtime type checker's wrapper


@compiled
def _is_near(rough, bound, slack, norms, i, m):
    there = i < m
    score = tl.load(rough + i, mask=there, other=0.0).to(tl.float32)
    error = slack * tl.load(norms + i, mask=there, other=0.0)
    return there & (score > tl.load(bound + i, mask=there, other=0.0) - error)


@compiled
def _count(rough, bound, slack, norms, counts, m, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.int32)
    for first in range(0, m, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += _is_near(rough + r * m, bound, tl.load(slack + r), norms, i, m).to(tl.int32)
    tl.store(counts + r, tl.sum(total))


@compiled
def _list(rough, bound, slack, norms, starts, rows, columns, m, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    at = tl.load(starts + r)
    for first in range(0, m, BLOCK):
        i = first + tl.arange(0, BLOCK)
        near = _is_near(rough + r * m, bound, tl.load(slack + r), norms, i, m)
        place = at + tl.cumsum(near.to(tl.int64)) - 1
        tl.store(columns + place, i, mask=near)
        tl.store(rows + place, r, mask=near)
        at += tl.sum(near.to(tl.int64))


def _block(d: int) -> dict[str, int]:
    block = triton.next_power_of_2(d)
    return {"BLOCK": block, "num_warps": min(max(block // 256, 1), 16)}


@compiled
def _row(pointer, index, d, lanes):
    return tl.load(pointer + index * d + lanes, mask=lanes < d, other=0.0)


@compiled
def _rows(pointer, index, where, d, lanes):
    return tl.load(pointer + index[:, None] * d + lanes[None, :], mask=where[:, None] & (lanes < d)[None, :], other=0.0)


@compiled
def _products_of(own, columns, start, end, matrix, out, d, lanes):
    for first in range(start, end, TOGETHER):
        e = first + tl.arange(0, TOGETHER)
        rows = _rows(matrix, tl.load(columns + e, mask=e < end, other=0), e < end, d, lanes)
        tl.store(out + e, tl.sum(own[None, :] * rows, 1), mask=e < end)


@compiled
def _products(starts, columns, left, right, out, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    _products_of(_row(left, r, d, lanes), columns, tl.load(starts + r), tl.load(starts + r + 1), right, out, d, lanes)


def products(starts: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left[row] . right[column] for every entry."""
    out = left.new_empty(len(columns))
    _products[(len(left),)](starts, columns, left.contiguous(), right, out, left.shape[1], **_block(left.shape[1]))
    return out


@compiled
def _reconstruct(starts, columns, f, W_dec, b_dec, x, residual, squares, products, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    start, end = tl.load(starts + r), tl.load(starts + r + 1)
    total = _row(b_dec, 0, d, lanes) - _row(x, r, d, lanes)
    for first in range(start, end, TOGETHER):
        e = first + tl.arange(0, TOGETHER)
        weight = tl.load(f + e, mask=e < end, other=0.0)
        rows = _rows(W_dec, tl.load(columns + e, mask=e < end, other=0), weight != 0.0, d, lanes)
        total += tl.sum(weight[:, None] * rows, 0)
    tl.store(residual + r * d + lanes, total, mask=lanes < d)
    tl.store(squares + r, tl.sum(total * total))
    _products_of(total, columns, start, end, W_dec, products, d, lanes)  # while the rows of W_dec are in the cache


def reconstruct(
    starts: Tensor, rows: Tensor, columns: Tensor, f: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    (batch, d), inputs = x.shape, (starts, columns, f.contiguous(), W_dec, b_dec, x.contiguous())
    residual, squares, products = torch.empty_like(x), x.new_empty(batch), torch.empty_like(f)
    _reconstruct[(batch,)](*inputs, residual, squares, products, d, **_block(d))
    return residual, squares, products


@compiled
def _sum(order, starts, rows, weights, matrix, c, d, lanes, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    end = tl.load(starts + c + 1)
    for first in range(tl.load(starts + c), end, TOGETHER):
        i = first + tl.arange(0, TOGETHER)
        e = tl.load(order + i, mask=i < end, other=0)
        weight = tl.load(weights + e, mask=i < end, other=0.0)
        total += tl.sum(weight[:, None] * _rows(matrix, tl.load(rows + e), weight != 0.0, d, lanes), 0)
    return total


@compiled
def _sum_columns(order, starts, rows, weights, matrix, out, d, BLOCK: tl.constexpr):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    total = _sum(order, starts, rows, weights, matrix, c, d, lanes, BLOCK)
    tl.store(out + c * d + lanes, total, mask=lanes < d)


def sum_columns(order: Tensor, starts: Tensor, rows: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    count, d = len(starts) - 1, matrix.shape[1]
    out = matrix.new_empty(count, d)
    _sum_columns[(count,)](order, starts, rows, weights.contiguous(), matrix.contiguous(), out, d, **_block(d))
    return out


@compiled
def _tangent(g, w, UNIT: tl.constexpr):
    if UNIT:
        g -= tl.sum(g * w) * w
    return g


@compiled
def _row_squares(grad, weight, out, d, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = _tangent(_row(grad, r, d, lanes), _row(weight, r, d, lanes), UNIT)
    tl.store(out + r, tl.sum(g * g))


@compiled
def _sum_columns_and_squares(
    order, starts, rows, weights, matrix, weight, out, squares, d, UNIT: tl.constexpr, BLOCK: tl.constexpr
):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = _sum(order, starts, rows, weights, matrix, c, d, lanes, BLOCK)
    tl.store(out + c * d + lanes, g, mask=lanes < d)
    g = _tangent(g, _row(weight, c, d, lanes), UNIT)
    tl.store(squares + c, tl.sum(g * g))


def grad_and_norms(grad: Tensor | Sums, weight: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    (count, d), squares = weight.shape, weight.new_empty(len(weight))
    if isinstance(grad, Sums):
        sums, grad = _contiguous(grad), torch.empty_like(weight)
        _sum_columns_and_squares[(count,)](*sums, weight, grad, squares, d, UNIT=unit, **_block(d))
    elif count == 1:  # a vector would be one program
        return plain.grad_and_norms(grad, weight, unit)
    else:
        _row_squares[(count,)](grad.contiguous(), weight, squares, d, UNIT=unit, **_block(d))
    return grad, squares


@compiled
def _update(
    g, weight, mean, square, r, d, lanes, clip, step_size, beta1, beta2, unbias, eps, UNIT: tl.constexpr, MEAN: tl.constexpr
):
    at = r * d + lanes
    w = _row(weight, r, d, lanes)
    g = _tangent(g, w, UNIT) * tl.load(clip)
    v = beta2 * _row(square, r, d, lanes) + (1 - beta2) * g * g
    tl.store(square + at, v, mask=lanes < d)
    if MEAN:
        g = beta1 * _row(mean, r, d, lanes) + (1 - beta1) * g
        tl.store(mean + at, g, mask=lanes < d)
    w -= step_size * g / (tl.sqrt(v) * unbias + eps)
    if UNIT:
        w = w / tl.sqrt(tl.sum(w * w))
    tl.store(weight + at, w, mask=lanes < d)


@compiled
def _adam(
    grad, weight, mean, square, d, clip, step_size, beta1, beta2, unbias, eps,
    UNIT: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = _row(grad, r, d, lanes)
    _update(g, weight, mean, square, r, d, lanes, clip, step_size, beta1, beta2, unbias, eps, UNIT, MEAN)


@compiled
def _adam_sums(
    order, starts, rows, weights, matrix, weight, mean, square, d, clip, step_size, beta1, beta2, unbias, eps,
    UNIT: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = _sum(order, starts, rows, weights, matrix, c, d, lanes, BLOCK)
    _update(g, weight, mean, square, c, d, lanes, clip, step_size, beta1, beta2, unbias, eps, UNIT, MEAN)


def adam(weight: Tensor, grad: Tensor | Sums, mean: Tensor, square: Tensor, numbers: Adam, unit: bool) -> None:
    if len(weight) == 1 and isinstance(grad, Tensor) and not unit:  # a vector, cut into rows
        weight, grad, mean, square = (x.view(-1, math.gcd(x.shape[1], SCAN)) for x in (weight, grad, mean, square))
    d = weight.shape[1]
    clip = numbers.clip if isinstance(numbers.clip, Tensor) else weight.new_full((), numbers.clip)
    rest = (weight, mean, square, d, clip.float(), *numbers[1:])
    how = {"UNIT": unit, "MEAN": numbers.beta1 != 0, **_block(d)}
    if isinstance(grad, Sums):
        _adam_sums[(len(weight),)](*_contiguous(grad), *rest, **how)
    else:
        _adam[(len(weight),)](grad.contiguous(), *rest, **how)


def _contiguous(sums: Sums) -> list[Tensor]:
    return [tensor.contiguous() for tensor in sums]
