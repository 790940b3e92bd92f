"""Entries chosen in two stages.

A product in bf16 ranks all d_sae latents; its error is below 2^-7 |u| |w|, mostly far below. Every latent this close to
being chosen is a candidate, whose pre-activation is then computed in fp32. The k largest are taken from k + k / 4 + 8
candidates per token, so that no size depends on the data and the host never waits. Candidates for a bound are counted, for
which the host waits, and all of them are listed; those that are below the bound have the value 0. A list that is `sure` is
not made: dense products are fast here.
"""
import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops import entries
from saesweep.arch.ops.entries import Chosen, starts_of
from saesweep.arch.ops.gpu.rows import compiled
from saesweep.arch.ops.gpu.sums import products

ROUNDING = 2.0**-7
SCAN = 1024  # latents per block of a scan


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
