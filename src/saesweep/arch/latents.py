"""Latents of a batch, dense or as a list of the entries that can be nonzero, with one interface.

Only about L0 of the d_sae latents are active on a token, and all others contribute neither to the reconstruction nor to any
gradient. A batch of latents is therefore either

    dense   values [batch, d_sae]
    a list  values [n], with the row (token) and column (latent) of each entry, in row-major order

Decoding and every weight gradient are weighted sums of the rows of one matrix over that list:

    x_hat[b]    = sum over entries of row b     of  f * W_dec[column]
    dW_dec[i]   = sum over entries of column i  of  f * g[row]            g = dL/dx_hat = 2 (x_hat - x) / batch
    df          = g[row] . W_dec[column]
    dW_enc[:,i] = sum over entries of column i  of  dpi * u[row]          u = x - b_dec
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saesweep.arch.execution import Execution, Ranks, TooManyRows
from saesweep.arch.ops import ops_for
from saesweep.arch.ops.entries import Chosen, DeferredGradients, Sums, most_entries
from saesweep.arch.ops.plain import kept


@dataclass(frozen=True)
class Entries:
    """The n entries of a [batch, d_sae] matrix that are on the list, sorted by row."""

    row_starts: Int[Tensor, " batch_1"]
    rows: Int[Tensor, " n"]
    columns: Int[Tensor, " n"]
    shape: tuple[int, int]
    ops: ModuleType

    @cached_property
    def by_column(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " d_sae_1"]]:
        """The order that sorts the entries by column, and where each column starts in it."""
        return self.ops.sort_by_column(self.columns, self.shape[1])

    def gradient(
        self, of: Float[Tensor, "d_sae d"], weights: Float[Tensor, " n"], matrix: Float[Tensor, "rows d"],
        deferred: DeferredGradients | None, rows: Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "d_sae d"] | None:
        """The gradient of the parameter `of`: for every column, the sum of weight * matrix[row]; None once it is deferred.

        rows: of the matrix, for every entry, where they are not the tokens.
        """
        sums = Sums(*self.by_column, self.rows if rows is None else rows, weights, matrix)
        if deferred is None:
            return self.ops.sum_columns(*sums)
        deferred.append((of, sums))
        return None


@dataclass(frozen=True)
class Latents:
    """One value per entry: dense [batch, d_sae] where `entries` is None, else the list's [n]."""

    values: Float[Tensor, ...]
    shape: tuple[int, int]
    entries: Entries | None = None

    def at(self, parameter: Float[Tensor, " d_sae"]) -> Float[Tensor, ...]:
        """The value of a per-latent parameter for every entry."""
        if self.entries is None:
            return parameter.expand(self.shape)
        return parameter.index_select(0, self.entries.columns)

    def with_values(self, values: Float[Tensor, ...]) -> Latents:
        """The same entries with other values."""
        return Latents(values, self.shape, self.entries)

    def mean_per_token(self, values: Float[Tensor, ...]) -> Float[Tensor, ""]:
        """Sum over latents, mean over tokens."""
        return values.sum() / self.shape[0]

    @property
    def l0(self) -> Float[Tensor, ""]:
        """Mean number of latents above 0 per token."""
        return (self.values.detach() > 0).sum() / self.shape[0]

    def per_token(self, values: Float[Tensor, ...]) -> Float[Tensor, " batch"]:
        """Sum over latents, for each token of this rank."""
        if self.entries is None:
            return values.sum(1)
        return values.new_zeros(self.shape[0]).index_add(0, self.entries.rows, values)

    def frequency(self, ranks: Ranks) -> Float[Tensor, " d_sae"]:
        """Share of the batch's tokens, over all ranks, on which each latent is above 0; without gradient."""
        return self.with_values((self.values > 0).to(self.values)).mean_per_latent(ranks)

    def mean_per_latent(self, ranks: Ranks) -> Float[Tensor, " d_sae"]:
        """Mean of each latent's values over the batch's tokens, over all ranks; without gradient."""
        values = self.values.detach()
        if self.entries is None:
            sums = values.sum(0)
        else:
            sums = values.new_zeros(self.shape[1]).index_add_(0, self.entries.columns, values)
        ranks.all_reduce_([sums, tokens := sums.new_full((), self.shape[0])])
        return sums / tokens

    @property
    def fired(self) -> Bool[Tensor, " d_sae"]:
        """Whether each latent was above 0 on any token."""
        values = self.values.detach()
        if self.entries is None:
            return (values > 0).any(0)
        return self.entries.ops.fired(self.entries.columns, values, self.shape[1])

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        if self.entries is None:
            return self.values
        out = self.values.new_zeros(self.shape)
        return out.index_put((self.entries.rows, self.entries.columns), self.values)


class _Encode(torch.autograd.Function):
    """pi = u W_enc + b_enc at the entries of the list, whose values are already computed; u = x - b_dec."""

    @staticmethod
    def forward(ctx, u, W_enc_T, b_enc, b_dec, values, entries, deferred):
        ctx.save_for_backward(u, W_enc_T, values)
        ctx.entries, ctx.deferred = entries, deferred
        return values.clone()

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        u, W_enc_T, values = ctx.saved_tensors
        grad = grad.masked_fill(values == 0, 0.0)  # entries that are on the list, but not kept
        dW_enc_T = ctx.entries.gradient(W_enc_T, grad, u, ctx.deferred) if ctx.needs_input_grad[1] else None
        db_enc = grad.new_zeros(ctx.entries.shape[1]).index_add_(0, ctx.entries.columns, grad)
        db_dec = -(db_enc @ W_enc_T) if ctx.needs_input_grad[3] else None
        return None, dW_enc_T, db_enc, db_dec, None, None, None


class _Reconstruct(torch.autograd.Function):
    """The residual f W_dec + b_dec - x, which has no gradient, and its squared norm averaged over the batch."""

    @staticmethod
    def forward(ctx, f, W_dec, b_dec, x, entries, deferred):
        where = (entries.row_starts, entries.rows, entries.columns)
        residual, squares, products = entries.ops.reconstruct(*where, f, W_dec, b_dec, x)
        ctx.save_for_backward(f, residual, products, W_dec)
        ctx.entries, ctx.deferred = entries, deferred
        ctx.mark_non_differentiable(residual)
        return residual, squares.sum() / len(x)

    @staticmethod
    def backward(ctx, _, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        f, residual, products, W_dec = ctx.saved_tensors
        factor = 2 * grad / len(residual)
        dW_dec = ctx.entries.gradient(W_dec, f * factor, residual, ctx.deferred) if ctx.needs_input_grad[1] else None
        db_dec = residual.sum(0) * factor if ctx.needs_input_grad[2] else None
        dx = residual * -factor if ctx.needs_input_grad[3] else None
        return products * factor, dW_dec, db_dec, dx, None, None


def encode(
    x: Float[Tensor, "batch d_in"],
    W_enc_T: Float[Tensor, "d_sae d_in"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    above: Float[Tensor, " d_sae"] | None,
    k: int,
    execution: Execution,
    sure: bool = False,
) -> Latents:
    """Pre-activations above their bound, or else the k largest of each token: as a list, or dense if `execution.dense` or if a
    list would be slower; sure: none is missing from the list. Raises TooManyRows where `execution` says so.

    Dense values that are not kept are zero and have no gradient, so both layouts give the same numbers.
    """
    shape = (len(x), len(W_enc_T))
    ops = ops_for(x)
    u = x - b_dec
    room = execution.room if execution.retaken and not execution.dense else None
    too_many = execution.in_pieces and len(x) > execution.dense_rows(len(W_enc_T))
    if not execution.dense and (too_many or not (room and room.dense)):
        chosen = ops.choose(u.detach(), W_enc_T, b_enc, above, k, sure, execution.rounded_W, room)
        if chosen is not None:
            return _listed(u, W_enc_T, b_enc, b_dec, chosen, ops, execution)
    if too_many:
        raise TooManyRows
    pi = F.linear(u, W_enc_T, b_enc)
    mask = kept(pi.detach(), above, k)
    if room and room.dense:
        room.note(mask.sum(), most_entries(*shape))
    return Latents(pi.masked_fill(~mask, 0.0), shape)


def encode_among(
    x: Float[Tensor, "batch d_in"], W_enc_T: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"], among: Int[Tensor, " some"], bias: Float[Tensor, " some"], k: int, execution: Execution,
) -> Latents | None:
    """The k largest pre-activations of each token among some of the latents, as a list; None where that would be slower than
    dense products with these latents. bias: their b_enc."""
    ops, u = ops_for(x), x - b_dec
    chosen = None if execution.dense else ops.choose(u.detach(), W_enc_T.detach()[among], bias.detach(), None, k)
    if chosen is None:
        return None
    starts, rows, columns, values = chosen
    return _listed(u, W_enc_T, b_enc, b_dec, (starts, rows, among[columns], values), ops, execution)


def _listed(
    u: Tensor, W_enc_T: Tensor, b_enc: Tensor, b_dec: Tensor, chosen: Chosen, ops: ModuleType, execution: Execution
) -> Latents:
    (starts, rows, columns, values), shape = chosen, (len(u), len(W_enc_T))
    entries = Entries(starts, rows, columns, shape, ops)
    pi = _Encode.apply(u.detach(), W_enc_T, b_enc, b_dec, values, entries, execution.deferred_gradients)
    return Latents(pi, shape, entries)


def reconstruct(
    f: Latents, W_dec: Float[Tensor, "d_sae d_out"], b_dec: Float[Tensor, " d_out"], x: Float[Tensor, "batch d_out"],
    deferred: DeferredGradients | None = None,
) -> tuple[Float[Tensor, "batch d_out"], Float[Tensor, ""]]:
    """x_hat = f W_dec + b_dec, without gradient, and the squared error, summed over d_in and averaged over the batch."""
    if f.entries is None:
        x_hat = f.values @ W_dec + b_dec
        return x_hat.detach(), (x - x_hat).square().sum(-1).mean()
    residual, error = _Reconstruct.apply(f.values, W_dec, b_dec, x, f.entries, deferred)
    return x.detach() + residual, error
