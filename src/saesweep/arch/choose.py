"""Which entries of pi = u W_enc + b_enc are worth having: those above a bound, or the k largest of each token.

On a CPU they are found in two stages. A rough product ranks all d_sae latents: in int8 where the processor multiplies
that natively (a third of the time of fp32), with rows scaled to their largest value s * 127. It is off by

    pi - rough ~ normal(0, (s_u |w|)^2 / 12 + (s_w |u|)^2 / 12)         s_u, s_w: the steps of u's and w's rows

so whatever lies within a few standard deviations of being chosen is a candidate. Some coordinates of a language
model's activations are far larger than the others, and would coarsen the step for all: u is divided, and W_enc
multiplied, by the square root of each coordinate's rms, which shares that out between the two. The candidates, a tenth
more than are chosen, are then computed in fp32 and chosen by that: values are exact, and so is the choice but for
about one entry in ten thousand, at the edge of being chosen.
"""
from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.arch import kernels

# A list costs more per entry than a dense product does: with fewer latents per active one than this, dense is faster.
# Measured on 2 cores without AMX: level at 7 to 8 for widths of 4,096 and 16,384, ReLU, Gated and TopK alike.
DENSE_BELOW = 8
Chosen = tuple[Tensor, Tensor, Tensor, Tensor]  # where rows start; row, column and value of each entry, in row-major order


def kept(pi: Float[Tensor, "batch d_sae"], above: Float[Tensor, " d_sae"] | None, k: int) -> Bool[Tensor, "batch d_sae"]:
    """The definition: what lies above its bound, or else the k largest of each row."""
    if above is not None:
        return pi > above
    return torch.zeros_like(pi, dtype=torch.bool).scatter_(1, pi.topk(k, sorted=False).indices, True)


@torch.no_grad()
def choose(
    u: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"],
    above: Float[Tensor, " d_sae"] | None, k: int,
) -> Chosen | None:
    """The entries that `kept` says, with their pre-activations; None where they are too many for a list to pay."""
    if u.device.type != "cpu" or u.dtype != torch.float32:
        return _choose_plain(u, W_enc_T, b_enc, above, k)
    batch, d_sae = len(u), len(W_enc_T)
    if above is None and DENSE_BELOW * k > d_sae:
        return None
    room = d_sae // 2 + 1
    slots = torch.empty(batch, room, dtype=torch.int32)
    counts = torch.empty(batch, dtype=torch.int64)
    _scan(u, W_enc_T, b_enc, above, k, slots, counts)
    if int(counts.max()) > room or DENSE_BELOW * int(counts.sum()) > 2 * batch * d_sae:
        return None
    values = torch.empty(batch, room)
    exact = (slots, values, counts, u, W_enc_T, b_enc)
    if above is not None:
        kernels.keep_above(*_arrays(*exact, above))
    else:
        kernels.keep_largest(*_arrays(*exact), k)
    starts = starts_of(counts)
    n = int(starts[-1])
    if DENSE_BELOW * n > batch * d_sae:
        return None
    rows, columns, out = torch.empty(n, dtype=torch.int64), torch.empty(n, dtype=torch.int64), torch.empty(n)
    kernels.flatten(*_arrays(slots, values, starts, rows, columns, out))
    return starts, rows, columns, out


def starts_of(counts: Tensor) -> Tensor:
    """[n] -> [n + 1]: where each of n runs begins, and where the last one ends."""
    return F.pad(counts.cumsum(0), (1, 0))


def _arrays(*tensors: Tensor) -> tuple:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _choose_plain(u: Tensor, W_enc_T: Tensor, b_enc: Tensor, above: Tensor | None, k: int) -> Chosen | None:
    """By PyTorch alone: what other devices and precisions take."""
    pi = F.linear(u, W_enc_T, b_enc)
    mask = kept(pi, above, k)
    if DENSE_BELOW * int(mask.sum()) > mask.numel():
        return None
    rows, columns = mask.nonzero(as_tuple=True)
    return starts_of(mask.sum(1)), rows, columns, pi[rows, columns]


def _scan(
    u: Tensor, W_enc_T: Tensor, b_enc: Tensor, above: Tensor | None, k: int, slots: Tensor, counts: Tensor
) -> None:
    """The candidates, per row."""
    score, scale_u, scale_w, norm_u, norm_w = _rough(u, W_enc_T)
    sigma = 1 / math.sqrt(12)
    if above is not None:  # 3 of the one and 3 of the other part: between 3 and 4.2 of the sum
        bound, error = (above - b_enc) / scale_w, 3 * sigma * norm_w / scale_w
        kernels.scan_above(*_arrays(score, scale_u, 3 * sigma * norm_u, bound, error, slots, counts))
    else:
        error = 4 * sigma * torch.hypot(scale_u * norm_w.max(), scale_w.max() * norm_u)
        kernels.scan_largest(*_arrays(score, scale_u, error, scale_w, b_enc), k, *_arrays(slots, counts))


def _rough(u: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"]) -> tuple[Tensor, ...]:
    """score [batch, d_sae] ~ u W_enc / (scale_u scale_w), the two scales, and the norms that its error grows with."""
    if not int8_is_fast():
        ones_u, ones_w = torch.ones(len(u)), torch.ones(len(W_enc_T))
        tiny = 8 * torch.finfo(u.dtype).eps
        return u @ W_enc_T.T, ones_u, ones_w, tiny * u.norm(dim=1), torch.zeros(len(W_enc_T))
    rms = u.square().mean(0).sqrt()
    share = (rms / rms.mean()).clamp(1e-4, 1e4).nan_to_num(1.0).sqrt()
    q_u, scale_u, norm_u = _quantised(u, 1 / share)
    q_w, scale_w, norm_w = _quantised(W_enc_T, share)
    size = len(u) * len(W_enc_T)
    score = torch._int_mm(q_u, q_w.T, out=_scratch(size)[:size].view(len(u), -1))
    return score, scale_u, scale_w, norm_u, norm_w


def _quantised(x: Float[Tensor, "n d"], factor: Float[Tensor, " d"]) -> tuple[Tensor, Tensor, Tensor]:
    q, scale, norm = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x)), torch.empty(len(x))
    kernels.quantise(*_arrays(x, factor, q, scale, norm))
    return q, scale, norm


_buffer = torch.empty(0, dtype=torch.int32)


def _scratch(size: int) -> Tensor:
    """The largest tensor of a step is the same memory every time."""
    global _buffer
    if len(_buffer) < size:
        _buffer = torch.empty(size, dtype=torch.int32)
    return _buffer


@cache
def int8_is_fast() -> bool:
    return torch.cpu._is_vnni_supported()
