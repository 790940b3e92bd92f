"""Latents of a batch, dense or as the list of the few entries that matter; the same formulas serve both.

Of d_sae latents only about L0 are active on a token, and entries that are zero and stay zero contribute neither to the
reconstruction nor to any gradient. So a batch of latents is either

    dense   values [batch, d_sae]
    a list  values [n], with the row (token) and column (latent) of each entry, in row-major order

and decoding, as well as every weight gradient, is a weighted sum of rows of one matrix over that list:

    x_hat[b]    = sum over entries of row b     of  f * W_dec[column]
    dW_dec[i]   = sum over entries of column i  of  f * g[row]            g = dL/dx_hat
    df          = g[row] . W_dec[column]
    dW_enc[:,i] = sum over entries of column i  of  dpi * u[row]          u = x - b_dec
"""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A list costs more per entry than a dense product does: with fewer latents per active one than this, dense is faster.
# Measured on 2 cores (AVX-512); on a GPU the crossover lies higher.
DENSE_BELOW = 16
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")  # one product of it is used


@dataclass(frozen=True)
class Entries:
    """Which entries of a [batch, d_sae] matrix are kept: n of them, sorted by row."""

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, " n"]
    shape: tuple[int, int]

    @staticmethod
    def of(kept: Bool[Tensor, "batch d_sae"] | Int[Tensor, "batch k"], d_sae: int) -> Entries:
        """From a mask, or from k columns for every row."""
        batch = kept.shape[0]
        if kept.dtype == torch.bool:
            rows, columns = kept.nonzero(as_tuple=True)
            return Entries(rows, columns, (batch, d_sae))
        rows = torch.arange(batch, device=kept.device).repeat_interleave(kept.shape[1])
        return Entries(rows, kept.flatten(), (batch, d_sae))

    @cached_property
    def row_starts(self) -> Int[Tensor, " batch"]:
        return _starts(self.rows, self.shape[0])

    @cached_property
    def column_starts(self) -> Int[Tensor, " d_sae"]:
        return _starts(self.columns, self.shape[1])

    @cached_property
    def by_column(self) -> Int[Tensor, " n"]:
        """The order that sorts the entries by column."""
        return self.columns.argsort(stable=True)

    def sum_rows(self, weights: Float[Tensor, " n"], matrix: Float[Tensor, "d_sae d"]) -> Float[Tensor, "batch d"]:
        """For every row of the list, the sum of weight * matrix[column]."""
        return F.embedding_bag(self.columns, matrix, self.row_starts, mode="sum", per_sample_weights=weights)

    def sum_columns(self, weights: Float[Tensor, " n"], matrix: Float[Tensor, "batch d"]) -> Float[Tensor, "d_sae d"]:
        """For every column of the list, the sum of weight * matrix[row]."""
        order = self.by_column
        rows, weights = self.rows[order], weights[order]
        return F.embedding_bag(rows, matrix, self.column_starts, mode="sum", per_sample_weights=weights)

    def products(self, left: Float[Tensor, "batch d"], right: Float[Tensor, "d_sae d"]) -> Float[Tensor, " n"]:
        """left[row] . right[column] for every entry."""
        ends = self.row_starts.new_tensor([len(self.rows)])
        pointers = torch.cat([self.row_starts, ends])
        zeros = left.new_zeros(len(self.rows))
        pattern = torch.sparse_csr_tensor(pointers, self.columns, zeros, self.shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


def _starts(index: Int[Tensor, " n"], size: int) -> Int[Tensor, " size"]:
    counts = torch.bincount(index, minlength=size)
    return counts.cumsum(0) - counts


@dataclass(frozen=True)
class Latents:
    """One value per entry: dense [batch, d_sae] where `entries` is None, else the list's [n]."""

    values: Float[Tensor, ...]
    shape: tuple[int, int]
    entries: Entries | None = None

    def at(self, parameter: Float[Tensor, " d_sae"]) -> Float[Tensor, ...]:
        """A per-latent parameter beside every value."""
        if self.entries is None:
            return parameter.expand(self.shape)
        return parameter.index_select(0, self.entries.columns)

    def like(self, values: Float[Tensor, ...]) -> Latents:
        return Latents(values, self.shape, self.entries)

    def per_token(self, values: Float[Tensor, ...]) -> Float[Tensor, ""]:
        """Sum over latents, mean over tokens."""
        return values.sum() / self.shape[0]

    @property
    def l0(self) -> Float[Tensor, ""]:
        """Mean number of latents > 0 per token."""
        return (self.values.detach() > 0).sum() / self.shape[0]

    @property
    def fired(self) -> Bool[Tensor, " d_sae"]:
        """Whether each latent was > 0 on any token."""
        active = self.values.detach() > 0
        if self.entries is None:
            return active.any(0)
        return torch.zeros(self.shape[1], dtype=torch.bool, device=active.device).index_fill_(
            0, self.entries.columns[active], True
        )

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        if self.entries is None:
            return self.values
        out = self.values.new_zeros(self.shape)
        return out.index_put((self.entries.rows, self.entries.columns), self.values)


@torch.no_grad()
def rough_preactivations(
    u: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"]
) -> Float[Tensor, "batch d_sae"]:
    """u W_enc + b_enc, good enough to choose entries by: in bf16 where the processor multiplies that much faster."""
    if u.dtype == torch.float32 and u.device.type == "cpu" and _bf16_is_fast():
        u, W_enc_T, b_enc = u.bfloat16(), W_enc_T.bfloat16(), b_enc.bfloat16()
    return torch.addmm(b_enc, u, W_enc_T.T)


@cache
def _bf16_is_fast() -> bool:
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


class _Encode(torch.autograd.Function):
    """pi = (x - b_dec) W_enc + b_enc at the kept entries; z holds it already, unless it is a rough one."""

    @staticmethod
    def forward(ctx, x, W_enc_T, b_enc, b_dec, z, entries):
        ctx.save_for_backward(x, W_enc_T, b_dec)
        ctx.entries = entries
        rough = z.dtype != x.dtype
        if entries is None:
            return torch.addmm(b_enc, x - b_dec, W_enc_T.T) if rough else z.clone()
        if rough:
            return entries.products(x - b_dec, W_enc_T) + b_enc[entries.columns]
        return z[entries.rows, entries.columns]

    @staticmethod
    def backward(ctx, grad):
        x, W_enc_T, b_dec = ctx.saved_tensors
        u, entries = x - b_dec, ctx.entries
        if entries is None:
            dW_enc_T, db_enc = grad.T @ u, grad.sum(0)
        else:
            dW_enc_T = entries.sum_columns(grad, u)
            db_enc = grad.new_zeros(entries.shape[1]).index_add_(0, entries.columns, grad)
        return None, dW_enc_T, db_enc, -(db_enc @ W_enc_T), None, None


class _Decode(torch.autograd.Function):
    """f W_dec over the list."""

    @staticmethod
    def forward(ctx, f, W_dec, entries):
        ctx.save_for_backward(f, W_dec)
        ctx.entries = entries
        return entries.sum_rows(f, W_dec)

    @staticmethod
    def backward(ctx, grad):
        f, W_dec = ctx.saved_tensors
        df = ctx.entries.products(grad, W_dec)
        dW_dec = ctx.entries.sum_columns(f, grad) if ctx.needs_input_grad[1] else None
        return df, dW_dec, None


def encode_at(
    x: Float[Tensor, "batch d_in"],
    W_enc_T: Float[Tensor, "d_sae d_in"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    z: Float[Tensor, "batch d_sae"],
    kept: Bool[Tensor, "batch d_sae"] | Int[Tensor, "batch k"],
) -> Latents:
    """Pre-activations at the kept entries, as a list, or dense where too many are kept for a list to pay.

    Dense values outside `kept` are zero, and no gradient passes there: both layouts give the same numbers.
    """
    n = int(kept.sum()) if kept.dtype == torch.bool else kept.numel()
    if n * DENSE_BELOW <= z.numel():
        entries = Entries.of(kept, z.shape[1])
        return Latents(_Encode.apply(x, W_enc_T, b_enc, b_dec, z, entries), tuple(z.shape), entries)
    if kept.dtype != torch.bool:
        kept = torch.zeros_like(z, dtype=torch.bool).scatter_(1, kept, True)
    values = _Encode.apply(x, W_enc_T, b_enc, b_dec, z, None)
    return Latents(values.masked_fill(~kept, 0.0), tuple(z.shape))


def decode(f: Latents, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "batch d_in"]:
    """f W_dec."""
    return f.values @ W_dec if f.entries is None else _Decode.apply(f.values, W_dec, f.entries)
