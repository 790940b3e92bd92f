"""From an SAE as its files have it to one of ours, in raw units: f = act((x - b_dec) W_enc + b_enc), x_hat = f W_dec + b_dec.

    theirs    pi = (a x - [b_dec]) W_enc + b_enc        x_hat = (f W_dec + b_dec) / c        [ ]: with pre_bias
    units     b_enc / a, theta / a, b_dec / c, W_dec a / c          f is then in raw units
    bias      b_enc + (b_dec - e) W_enc          e = what their encoder subtracts: b_dec / a, or 0 without pre_bias
    norms     n_i = ||W_dec,i||: W_enc n, b_enc n, theta n, W_dec / n

The norms of a TopK are left as they are, unless they are equal or `by_norm`: they would change which latents are the largest.
Where nothing is to be done, tensors keep their bits.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.errors import UsageError

ROUNDING = 1e-5  # relative difference of norms that is none: what SAEBench takes for unit norm
ROWS = 4096  # that are in fp64 at a time


@dataclass(frozen=True)
class Original:
    """One of threshold and k is None. by_norm: what is ranked, or compared with the threshold, is pi_i ||W_dec,i||.

    The shapes are those that files have; `require_shapes` checks them.
    """

    W_enc_T: Tensor  # [d_sae, d_in]
    b_enc: Tensor  # [d_sae]
    W_dec: Tensor  # [d_sae, d_in]
    b_dec: Tensor  # [d_in]
    threshold: Tensor | None = None  # [d_sae]
    k: int | None = None
    pre_bias: bool = True
    a: float = 1.0
    c: float = 1.0
    by_norm: bool = False


def gated(
    W_gate_T: Float[Tensor, "d_sae d_in"], b_gate: Float[Tensor, " d_sae"], r_mag: Float[Tensor, " d_sae"],
    b_mag: Float[Tensor, " d_sae"],
) -> tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """W_enc_T, b_enc and threshold of the JumpReLU that a Gated SAE is."""
    scale = r_mag.exp()
    return scale[:, None] * W_gate_T, b_mag, b_mag - scale * b_gate


@torch.no_grad()
def folded(sae: Original) -> dict[str, Tensor]:
    """The tensors by their names in SAELens' format; `threshold` unless it is a TopK."""
    W_enc_T, W_dec = sae.W_enc_T, sae.W_dec if sae.a == sae.c else sae.W_dec * (sae.a / sae.c)
    b_enc, b_dec = sae.b_enc / sae.a, sae.b_dec / sae.c
    theta = None if sae.threshold is None else sae.threshold / sae.a
    subtracted = sae.b_dec / sae.a if sae.pre_bias else torch.zeros_like(b_dec)
    if not torch.equal(subtracted, b_dec):
        b_enc = b_enc + _product(W_enc_T, b_dec - subtracted)
    norms = W_dec.norm(dim=1)
    if _to_be_normalised(sae, norms):
        some = norms.masked_fill(norms == 0, 1.0)
        n = some if sae.k is None else norms  # a latent without a direction is never among the largest
        W_enc_T, b_enc, W_dec = W_enc_T * n[:, None], b_enc * n, W_dec / some[:, None]
        theta = theta if theta is None or sae.by_norm else theta * n
    found = {"W_enc": W_enc_T.T, "W_dec": W_dec, "b_dec": b_dec, "b_enc": b_enc}
    return found if theta is None else found | {"threshold": theta.clamp(min=0)}


def _to_be_normalised(sae: Original, norms: Float[Tensor, " d_sae"]) -> bool:
    low, high = float(norms.min()), float(norms.max())
    if max(abs(low - 1), abs(high - 1)) <= ROUNDING:
        return False
    return sae.k is None or sae.by_norm or high - low <= ROUNDING * high


def _product(W_enc_T: Float[Tensor, "d_sae d_in"], x: Float[Tensor, " d_in"]) -> Float[Tensor, " d_sae"]:
    return torch.cat([rows.double() @ x.double() for rows in W_enc_T.split(ROWS)]).float()


def require_shapes(sae: Original, typed: str) -> None:
    """Raises UsageError for tensors whose shapes do not fit together, or that are not finite."""
    if sae.W_enc_T.ndim != 2:
        raise UsageError(f"{typed}: W_enc has {sae.W_enc_T.ndim} dimensions, and must have 2")
    d_sae, d_in = sae.W_enc_T.shape
    shapes = {"W_enc_T": (d_sae, d_in), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    shapes |= {"threshold": (d_sae,)} if sae.threshold is not None else {}
    for name, wanted in shapes.items():
        if (found := tuple(getattr(sae, name).shape)) != wanted:
            raise UsageError(f"{typed}: {name} has the shape {list(found)}, and W_enc {[d_in, d_sae]} needs {list(wanted)}; it "
                             "is no SAE of one tensor, or the file of another")
        if not bool(getattr(sae, name).isfinite().all()):
            raise UsageError(f"{typed}: {name} is not finite; copy its files again")
    if sae.k is not None and not 0 < sae.k <= d_sae:
        raise UsageError(f"{typed}: k={sae.k}: must be from 1 to {d_sae}, its number of latents")
