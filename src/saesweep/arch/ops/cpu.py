"""fp32 on a CPU: numba's loops, and entries chosen in two stages.

A rough product ranks all d_sae latents: in int8 if the processor multiplies it natively (a third of the time of fp32), in
int16 if it has AVX2 but no VNNI, with rows scaled to the largest integer of the type; else in fp32. Its error is

    pi - rough ~ normal(0, (s_u |w|)^2 / 12 + (s_w |u|)^2 / 12)         s_u, s_w: the steps of u's and w's rows

so every latent within a few standard deviations of being chosen is a candidate. Some coordinates of a language model's
activations are far larger than the others and would make the quantisation step coarse for all: u is divided, and W_enc
multiplied, by the square root of each coordinate's rms, which splits the error between the two. The candidates, a tenth
more than are chosen, are then computed in fp32 and chosen by that value. Values are exact, and so is the choice except for
about one entry in ten thousand, at the edge of being chosen. A list that is `sure` has them all: its candidates, two to
three times as many as are chosen, are those that can be above their bound, or above the least of k that were computed, by

    |pi - rough| <= |u - u'| |w| + |u'| |w - w'|                  u', w': the rows that the integers stand for
"""
import math
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.ops import entries, int16, kernels
from saesweep.arch.ops.entries import Adam, Chosen, Rough, Sums, starts_of
from saesweep.arch.ops.room import Room
from saesweep.arch.ops.rounded import Rounded

SIGMA = 1 / math.sqrt(12)  # of a number that is rounded to an integer


@torch.no_grad()
def choose(
    u: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"],
    above: Float[Tensor, " d_sae"] | None, k: int, sure: bool = False, rounded_W: Rounded | None = None,
    room: Room | None = None,
) -> Chosen | None:
    batch, d_sae = len(u), len(W_enc_T)
    if above is None and entries.DENSE_BELOW * k > d_sae:
        return None
    most = d_sae // 2 + 1
    slots = torch.empty(batch, most, dtype=torch.int32)
    counts = torch.empty(batch, dtype=torch.int64)
    rough = _rough(u, W_enc_T, sure)
    _scan(rough, b_enc, above, k, slots, counts)
    if _many(counts, most, d_sae):
        return None
    values = torch.empty(batch, most)
    exact = (slots, values, counts, u, W_enc_T, b_enc)
    if above is not None:
        kernels.keep_above(*_arrays(*exact, above))
    else:
        kernels.keep_largest(*_arrays(*exact), k)
        if sure:
            _scan_near(rough, b_enc, values[:, :k].amin(1), slots, counts)
            if _many(counts, most, d_sae):
                return None
            kernels.keep_largest(*_arrays(*exact), k)
    starts = starts_of(counts)
    n = int(starts[-1])
    if entries.DENSE_BELOW * n > batch * d_sae:
        return None
    rows, columns, out = torch.empty(n, dtype=torch.int64), torch.empty(n, dtype=torch.int64), torch.empty(n)
    kernels.flatten(*_arrays(slots, values, starts, rows, columns, out))
    return starts, rows, columns, out


def sort_by_column(columns: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    order, starts = torch.empty_like(columns), torch.empty(d_sae + 1, dtype=torch.int64)
    kernels.sort_by_column(*_arrays(columns, starts, order))
    return order, starts


def reconstruct(
    starts: Tensor, rows: Tensor, columns: Tensor, f: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    residual, squares, products = torch.empty(x.shape), torch.empty(len(x)), torch.empty(f.shape)
    kernels.reconstruct(*_arrays(starts, columns, f, W_dec, b_dec, x, residual, squares, products))
    return residual, squares, products


def sum_columns(order: Tensor, starts: Tensor, rows: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    out = torch.empty(len(starts) - 1, matrix.shape[1])
    kernels.sum_columns(*_arrays(order, starts, rows, weights, matrix, out))
    return out


def fired(columns: Tensor, values: Tensor, d_sae: int) -> Tensor:
    out = torch.zeros(d_sae, dtype=torch.bool)
    kernels.mark_fired(*_arrays(columns, values, out))
    return out


def grad_and_norms(grad: Tensor | Sums, weight: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    squares = torch.empty(len(weight))
    if isinstance(grad, Sums):
        sums, grad = grad, torch.empty_like(weight)
        kernels.sum_columns_and_squares(*_arrays(*sums, weight), unit, *_arrays(grad, squares))
    else:
        kernels.row_squares(*_arrays(grad, weight), unit, squares.numpy())
    return grad, squares


def adam(
    weight: Tensor, grad: Tensor | Sums, mean: Tensor, square: Tensor, numbers: Adam, unit: bool, norms: bool = False,
    rounded_W: Rounded | None = None,
) -> Tensor | None:
    assert weight.is_contiguous() and mean.is_contiguous() and square.is_contiguous(), "these are written in place"
    state, scalars = _arrays(weight, mean, square), map(np.float32, numbers)
    squares = torch.empty(len(weight) if norms else 0)
    if isinstance(grad, Sums):
        kernels.adam_sums(*_arrays(*grad), *state, *scalars, unit, squares.numpy())
    else:
        if norms:
            kernels.row_squares(*_arrays(grad, weight), unit, squares.numpy())
        kernels.adam_rows(*_arrays(grad), *state, *scalars, unit)
    return squares if norms else None


def _arrays(*tensors: Tensor) -> tuple:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _many(counts: Tensor, most: int, d_sae: int) -> bool:
    """Whether there are so many candidates that dense products are faster."""
    return int(counts.max()) > most or entries.DENSE_BELOW * int(counts.sum()) > 2 * len(counts) * d_sae


def _scan(rough: Rough, b_enc: Tensor, above: Tensor | None, k: int, slots: Tensor, counts: Tensor) -> None:
    """Write the candidates of each row into slots, and their number into counts."""
    score, scale_u, scale_w, norm_u, norm_w, error_u, error_w = rough
    if above is not None:
        bound, error = (above - b_enc) / scale_w, error_u * norm_w / scale_w
        kernels.scan_above(*_arrays(score, scale_u, error_w * norm_u, bound, error, slots, counts))
    else:
        error = 4 * SIGMA * torch.hypot(scale_u * norm_w.max(), scale_w.max() * norm_u)
        kernels.scan_largest(*_arrays(score, scale_u, error, scale_w, b_enc), k, *_arrays(slots, counts))


def _scan_near(rough: Rough, b_enc: Tensor, least: Float[Tensor, " batch"], slots: Tensor, counts: Tensor) -> None:
    """The candidates for the k largest of each row, of which k are at least `least`."""
    error = rough.error_u * rough.norm_w / rough.scale_w
    near = (rough.score, rough.scale_u, rough.error_w * rough.norm_u, error, rough.scale_w, b_enc, least)
    kernels.scan_near(*_arrays(*near, slots, counts))


def _rough(u: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"], sure: bool) -> Rough:
    (n, d), m, kind = u.shape, len(W_enc_T), rough_in()
    usual = 3 * SIGMA  # of each of the two parts: 3 to 4.2 standard deviations of their sum
    if kind == "fp32" or (kind == "int16" and not int16.fits(n, m, d)):
        ones_u, ones_w = torch.ones(len(u)), torch.ones(len(W_enc_T))
        tiny = 8 * torch.finfo(u.dtype).eps
        x, W = _arrays(u, W_enc_T)
        score = torch.from_numpy(x @ W.T)  # numpy's OpenBLAS: torch's MKL is a quarter slower on AMD processors
        largest = max(1.0, float(W_enc_T.norm(dim=1).max())) if sure else 1.0
        return Rough(score, ones_u, ones_w, tiny * u.norm(dim=1), torch.zeros(len(W_enc_T)), usual, usual * largest)
    share = entries.coordinate_share(u)
    q_u, scale_u, norm_u = _quantised(u, 1 / share, kind)
    q_w, scale_w, norm_w = _quantised(W_enc_T, share, kind)
    score = _scratch(n * m)[: n * m].view(n, m)
    if kind == "int8":
        torch._int_mm(q_u, q_w.T, out=score)  # pyright: ignore[reportPrivateImportUsage]
    else:
        int16.product(*_arrays(q_u, q_w, score))
    if not sure:
        return Rough(score, scale_u, scale_w, norm_u, norm_w, usual, usual)
    error_u, error_w = _largest_error(u, 1 / share, q_u, scale_u), _largest_error(W_enc_T, share, q_w, scale_w)
    return Rough(score, scale_u, scale_w, norm_u + error_u * scale_u, norm_w, error_u, error_w)


def _quantised(x: Float[Tensor, "n d"], factor: Float[Tensor, " d"], kind: str) -> tuple[Tensor, Tensor, Tensor]:
    q, scale, norm = torch.empty(x.shape, dtype=getattr(torch, kind)), torch.empty(len(x)), torch.empty(len(x))
    most = np.float32(127 if kind == "int8" else int16.largest(x.shape[1]))
    kernels.quantise(*_arrays(x, factor), most, *_arrays(q, scale, norm))
    return q, scale, norm


def _largest_error(x: Tensor, factor: Tensor, q: Tensor, scale: Tensor) -> float:
    """The largest |x factor - scale q| / scale of a row, and a little more for the rounding of fp32."""
    error = torch.empty(len(x))
    kernels.quantisation_error(*_arrays(x, factor, q, scale, error))
    return 1.01 * float(error.max())


_buffer = torch.empty(0, dtype=torch.int32)


def _scratch(size: int) -> Tensor:
    """The largest tensor of a step uses the same memory every time."""
    global _buffer
    if len(_buffer) < size:
        _buffer = torch.empty(size, dtype=torch.int32)
    return _buffer


@cache
def rough_in() -> Literal["int8", "int16", "fp32"]:
    """The type of the fastest products on this processor."""
    if torch.cpu._is_vnni_supported():
        return "int8"
    return "int16" if torch.backends.cpu.get_cpu_capability() == "AVX2" else "fp32"
