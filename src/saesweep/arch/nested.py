"""The errors of nested reconstructions, each of which has the latents of the one before and more.

    r_g     = b_dec + sum over the entries of level <= g of  f W_dec  - x          g = 0 .. G - 1
    error_g = ||r_g||^2, summed over d_in, mean over the batch of B tokens
    R_g     = sum over h >= g of  c_h r_h                c_h: the gradient of the loss in error_h
    df = 2/B R[row, level] . W_dec[column]      dW_dec[i] = 2/B sum over column i of  f R[row, level]      db_dec = 2/B sum R_0
    dx = -2/B R_0, which a skip transcoder needs

So all G of them cost one decode forwards and one backwards: the list is decoded as if a token were G rows, one for the entries
of each level, whose running sum is r and whose running sum from the last to the first is R.
"""
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.latents import Latents


def reconstruct_nested(
    sae: SparseAutoencoder, f: Latents, x: Float[Tensor, "batch _"], levels: Int[Tensor, "..."], count: int
) -> tuple[Float[Tensor, "batch d_out"], Float[Tensor, " count"]]:
    """x_hat of all latents, without gradient, and the error of each of `count` reconstructions.

    levels: from 0 to count - 1, of every entry; or [d_sae], of every latent, which is cheaper where f is dense.
    """
    x, y = sae.without_skip(x), sae.targets(x)
    if f.entries is None:
        parts = [_decoded(sae, f.values, levels, g) for g in range(count)]
        r = torch.stack(parts, 1).cumsum(1) + (sae.b_dec - x).unsqueeze(1)
        return (y + r[:, -1]).detach(), r.square().sum((0, 2)) / len(x)
    levels = levels[f.entries.columns] if levels.shape == (sae.d_sae,) else levels
    r, errors = _Nested.apply(f, f.values, sae.W_dec, sae.b_dec, x, levels, count, sae.execution.deferred_gradients)
    return y + r, errors


def prefix_levels(sae: SparseAutoencoder) -> Int[Tensor, " d_sae"]:
    """The level of every latent where the reconstructions are of the first m latents, m in `prefixes`."""
    latents = torch.arange(sae.d_sae, device=sae.W_dec.device)
    return torch.stack([latents >= end for end in sae.prefixes]).sum(0)  # numbers on the device: the host does not wait


def _decoded(
    sae: SparseAutoencoder, f: Float[Tensor, "batch d_sae"], levels: Int[Tensor, "..."], g: int
) -> Float[Tensor, "batch d_in"]:
    """What the dense latents of level g add to the reconstruction."""
    if levels.dim() == 1:
        return f[:, levels == g] @ sae.W_dec[levels == g]
    return (f * (levels == g)) @ sae.W_dec


class _Nested(torch.autograd.Function):
    """The last residual, which has no gradient, and the error at every level."""

    @staticmethod
    def forward(ctx: Any, latents, f, W_dec, b_dec, x, levels, count, deferred):
        entries = latents.entries
        rows = entries.rows * count + levels
        found, order = rows.sort(stable=True)
        starts = torch.searchsorted(found, torch.arange(len(x) * count + 1, device=rows.device))
        ctx.where = starts, found, entries.columns[order]
        blank = x.new_zeros(len(x) * count, x.shape[1])
        r, _, _ = entries.ops.reconstruct(*ctx.where, f[order], W_dec, torch.zeros_like(b_dec), blank)
        r = r.view(len(x), count, -1)
        r[:, 0] += b_dec - x
        for g in range(1, count):  # a cumsum along this dimension takes longer
            r[:, g] += r[:, g - 1]
        ctx.save_for_backward(f, W_dec, b_dec, r, rows, order)
        ctx.entries, ctx.deferred = entries, deferred
        ctx.mark_non_differentiable(last := r[:, -1].contiguous())
        return last, torch.stack([each.square().sum() for each in r.unbind(1)]) / len(x)

    @staticmethod
    def backward(ctx: Any, _, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        f, W_dec, b_dec, r, rows, order = ctx.saved_tensors
        R = r * (2 / len(r) * grad).view(1, -1, 1)
        for g in reversed(range(R.shape[1] - 1)):
            R[:, g] += R[:, g + 1]
        dx = -R[:, 0] if ctx.needs_input_grad[4] else None
        db_dec, R = R[:, 0].sum(0), R.flatten(0, 1)
        df = torch.empty_like(f)  # with latents of 0 the residual is -R
        df[order] = -ctx.entries.ops.reconstruct(*ctx.where, torch.zeros_like(f), W_dec, torch.zeros_like(b_dec), R)[2]
        return None, df, ctx.entries.gradient(W_dec, f, R, ctx.deferred, rows), db_dec, dx, None, None, None
