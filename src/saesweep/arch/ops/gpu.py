"""fp32 on CUDA: Triton's kernels, a program per token or per latent, and entries chosen in two stages.

A product in bf16 ranks all d_sae latents; it is off by less than 2^-7 |u| |w|, mostly by far less. Whatever lies so near
to being chosen is a candidate, whose pre-activation is then computed in fp32. The k largest are taken of k + k / 4 + 8
candidates per token: no size depends on the data, and the host never waits. Entries above a bound are counted first.

TRITON_INTERPRET=1 runs the kernels without a GPU, on CPU tensors: that is how they are tested.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from saesweep.arch import ops
from saesweep.arch.ops import Adam, Chosen, plain, starts_of

ROUNDING = 2.0**-7
sort_by_column, fired = plain.sort_by_column, plain.fired


@torch.no_grad()
def choose(u: Tensor, W_enc_T: Tensor, b_enc: Tensor, above: Tensor | None, k: int) -> Chosen | None:
    batch, d_sae = len(u), len(W_enc_T)
    if above is None and ops.DENSE_BELOW * k > d_sae:
        return None
    rough = (u.bfloat16() @ W_enc_T.bfloat16().T).float() + b_enc
    if above is None:
        return _largest(rough, u, W_enc_T, b_enc, k)
    slack = ROUNDING * u.norm(dim=1, keepdim=True) * W_enc_T.norm(dim=1)
    mask = rough > above - slack
    counts = mask.sum(1)
    if ops.DENSE_BELOW * int(counts.sum()) > 2 * batch * d_sae:
        return None
    rows, columns = mask.nonzero(as_tuple=True)
    pi = products(starts_of(counts), columns, u, W_enc_T) + b_enc[columns]
    exact = pi > above[columns]
    rows, columns, pi = rows[exact], columns[exact], pi[exact]
    if ops.DENSE_BELOW * len(pi) > batch * d_sae:
        return None
    return starts_of(torch.bincount(rows, minlength=batch)), rows, columns, pi


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


def compiled(function: Callable) -> Callable:
    return triton.jit(inspect.unwrap(function))  # less what a type checker has put around it


def _block(d: int) -> dict[str, int]:
    return {"BLOCK": triton.next_power_of_2(d)}


@compiled
def _row(pointer, index, d, lanes):
    return tl.load(pointer + index * d + lanes, mask=lanes < d, other=0.0)


@compiled
def _products(starts, columns, left, right, out, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    own = _row(left, r, d, lanes)
    for e in range(tl.load(starts + r), tl.load(starts + r + 1)):
        tl.store(out + e, tl.sum(own * _row(right, tl.load(columns + e), d, lanes)))


def products(starts: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left[row] . right[column] for every entry."""
    out = left.new_empty(len(columns))
    _products[(len(left),)](starts, columns, left.contiguous(), right, out, left.shape[1], **_block(left.shape[1]))
    return out


@compiled
def _reconstruct(starts, columns, f, W_dec, b_dec, x, residual, products, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    start, end = tl.load(starts + r), tl.load(starts + r + 1)
    total = _row(b_dec, 0, d, lanes) - _row(x, r, d, lanes)
    for e in range(start, end):
        weight = tl.load(f + e)
        if weight != 0.0:
            total += weight * _row(W_dec, tl.load(columns + e), d, lanes)
    tl.store(residual + r * d + lanes, total, mask=lanes < d)
    for e in range(start, end):  # the rows of W_dec are in the cache now
        tl.store(products + e, tl.sum(total * _row(W_dec, tl.load(columns + e), d, lanes)))


def reconstruct(
    starts: Tensor, rows: Tensor, columns: Tensor, f: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    residual, products = torch.empty_like(x), torch.empty_like(f)
    d = x.shape[1]
    _reconstruct[(len(x),)](starts, columns, f.contiguous(), W_dec, b_dec, x.contiguous(), residual, products, d, **_block(d))
    return residual, products


@compiled
def _sum_columns(order, starts, rows, weights, matrix, out, d, BLOCK: tl.constexpr):
    c = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(tl.load(starts + c), tl.load(starts + c + 1)):
        e = tl.load(order + i)
        weight = tl.load(weights + e)
        if weight != 0.0:
            total += weight * _row(matrix, tl.load(rows + e), d, lanes)
    tl.store(out + c * d + lanes, total, mask=lanes < d)


def sum_columns(order: Tensor, starts: Tensor, rows: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    count, d = len(starts) - 1, matrix.shape[1]
    out = matrix.new_empty(count, d)
    _sum_columns[(count,)](order, starts, rows, weights.contiguous(), matrix.contiguous(), out, d, **_block(d))
    return out


@compiled
def _row_squares(grad, weight, out, d, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    g = _row(grad, r, d, lanes)
    if UNIT:
        w = _row(weight, r, d, lanes)
        g -= tl.sum(g * w) * w
    tl.store(out + r, tl.sum(g * g))


def row_squares(grad: Tensor, weight: Tensor, unit: bool) -> Tensor:
    if len(grad) == 1:
        return plain.row_squares(grad, weight, unit)
    out = grad.new_empty(len(grad))
    _row_squares[(len(grad),)](grad.contiguous(), weight, out, grad.shape[1], UNIT=unit, **_block(grad.shape[1]))
    return out


@compiled
def _adam(
    weight, grad, mean, square, d, clip, step_size, beta1, beta2, bias2, eps, UNIT: tl.constexpr, BLOCK: tl.constexpr
):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    at = r * d + lanes
    w, g = _row(weight, r, d, lanes), _row(grad, r, d, lanes)
    if UNIT:
        g -= tl.sum(g * w) * w
    g *= tl.load(clip)
    m = beta1 * _row(mean, r, d, lanes) + (1 - beta1) * g
    v = beta2 * _row(square, r, d, lanes) + (1 - beta2) * g * g
    w -= step_size * m / (tl.sqrt(v) / bias2 + eps)
    if UNIT:
        w = w / tl.sqrt(tl.sum(w * w))
    tl.store(mean + at, m, mask=lanes < d)
    tl.store(square + at, v, mask=lanes < d)
    tl.store(weight + at, w, mask=lanes < d)


def adam(weight: Tensor, grad: Tensor, mean: Tensor, square: Tensor, numbers: Adam, unit: bool) -> None:
    if len(weight) == 1:  # a vector: one program would do all of it
        return plain.adam(weight, grad, mean, square, numbers, unit)
    d = weight.shape[1]
    clip = torch.as_tensor(numbers.clip, dtype=torch.float32, device=weight.device)
    _adam[(len(weight),)](weight, grad.contiguous(), mean, square, d, clip, *numbers[1:], UNIT=unit, **_block(d))
    return None
