"""Entries chosen in two stages.

A product in bf16 ranks all d_sae latents. Every latent this close to being chosen is a candidate, whose pre-activation is then
computed in fp32. Candidates for a bound are counted, for which the host waits unless there is room for them (room.py), and all
of them are listed; those that are below the bound have the value 0. The k largest are taken from k + k / 4 + 8 candidates per
token, so that no size depends on the data and the host never waits. A list that is `sure` is not made: dense products are fast
here.

How close follows from what bf16, which has 8 bits, rounds in s = sum over j of u_j w_j; the sum itself is in fp32:

    s               by at most 2^-8 |s|
    u_j and w_j     by .00166 of each (rms), independently: s by .00234 ||u * w|| (rms), ||u * w||^2 = sum of u_j^2 w_j^2

||u * w|| is another number for every entry, but at most ||u / a||_4 ||a * w||_4 for any a > 0 (Cauchy and Schwarz): a norm for
each row. With a_j the root of coordinate j's rms in u, that is 1.5 to 1.8 times ||u * w|| on average, also where a few
coordinates are far larger than the others. (In a training u is that of the batch before: the update of W_enc writes the norms
of its rows, see rounded.py.) With SLACK = .0096 times it, an entry is missed at 4.1 standard deviations or more, mostly 6 to 7.
Emulated: docs/benchmarks.md.
"""
import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops import entries
from saesweep.arch.ops.entries import Chosen, starts_of
from saesweep.arch.ops.gpu.rounding import rounded
from saesweep.arch.ops.gpu.rows import compiled
from saesweep.arch.ops.gpu.sums import products
from saesweep.arch.ops.room import Room
from saesweep.arch.ops.rounded import Copy, Rounded

ROUNDING = tl.constexpr(2.0**-8)
SLACK = 0.0096
SCAN = 1024  # latents per block of a scan


@torch.no_grad()
def choose(
    u: Tensor, W_enc_T: Tensor, b_enc: Tensor, above: Tensor | None, k: int, sure: bool = False,
    rounded_W: Rounded | None = None, room: Room | None = None,
) -> Chosen | None:
    batch, d_sae = len(u), len(W_enc_T)
    if sure or (above is None and entries.DENSE_BELOW_ON_GPU * k > d_sae):
        return None
    low_W, norms_W, share = _copy(W_enc_T, entries.coordinate_share(u), rounded_W or Rounded())
    low_u, norms_u = rounded(u, 1 / share)
    if above is None:
        return _largest(torch.addmm(b_enc.bfloat16(), low_u, low_W.T), u, W_enc_T, b_enc, k)
    near = (low_u @ low_W.T, above - b_enc, SLACK * norms_u, norms_W)
    counts = torch.empty(batch, dtype=torch.int64, device=u.device)
    _count[(batch,)](*near, counts, d_sae, BLOCK=SCAN)
    starts = starts_of(counts)
    most = entries.most_entries(batch, d_sae)
    n = int(starts[-1]) if room is None else room.of(starts[-1], most)
    if n > most:
        return None
    place = torch.arange(n, device=u.device)
    rows, columns = place % batch, place % d_sae  # left over: spread over all columns, which are summed one by one
    _list[(batch,)](*near, starts, rows, columns, n, d_sae, BLOCK=SCAN)
    starts = starts.clamp(max=n)
    pi = products(starts, columns, u, W_enc_T) + b_enc[columns]
    return starts, rows, columns, torch.where((place < starts[-1]) & (pi > above[columns]), pi, 0.0)


def _copy(W_enc_T: Tensor, share: Tensor, rounded_W: Rounded) -> Copy:
    """What the last update has written; else made here, as it would have been."""
    if (copy := rounded_W.of(W_enc_T)) is None:
        by = share if rounded_W.share is None else rounded_W.share.to(share)
        copy = rounded_W.keep(W_enc_T, Copy(*rounded(W_enc_T, by), by))
    rounded_W.write_next_with(share)
    return copy


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
    error = slack * tl.load(norms + i, mask=there, other=0.0) + ROUNDING * tl.abs(score)
    return there & (score + error > tl.load(bound + i, mask=there, other=0.0))


@compiled
def _count(rough, bound, slack, norms, counts, m, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.int32)
    for first in range(0, m, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += _is_near(rough + r * m, bound, tl.load(slack + r), norms, i, m).to(tl.int32)
    tl.store(counts + r, tl.sum(total))


@compiled
def _list(rough, bound, slack, norms, starts, rows, columns, n, m, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    at = tl.load(starts + r)
    for first in range(0, m, BLOCK):
        i = first + tl.arange(0, BLOCK)
        near = _is_near(rough + r * m, bound, tl.load(slack + r), norms, i, m)
        place = at + tl.cumsum(near.to(tl.int64)) - 1
        tl.store(columns + place, i, mask=near & (place < n))
        tl.store(rows + place, r, mask=near & (place < n))
        at += tl.sum(near.to(tl.int64))
