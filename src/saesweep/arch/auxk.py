"""AuxK, the auxiliary loss that revives dead latents (Gao et al. 2024, arXiv:2406.04093, section A.2).

    loss = alpha * ||x - mean||^2 * ||e - e_hat||^2 / ||e||^2

e = x - x_hat is held constant, e_hat decodes the k_aux largest pi among the dead latents without b_dec, and the loss is 0
while no latent is dead. Over the variance of x this is the paper's term, times a constant: 1 in training units, where x is
centred.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.execution import Ranks
from saesweep.arch.latents import encode_among, reconstruct
from saesweep.arch.ops.entries import Sums, starts_of
from saesweep.arch.ops.plain import kept
from saesweep.arch.ops.room import Late


class Dead:
    """The latents that have not fired for more than `aux_tokens` tokens. Made first in a step: a GPU counts them before it
    computes the step, for which the host does not wait when it reads their number.

    With `Execution.dead_room` there are places for more, filled with latents that are not dead.
    """

    def __init__(self, sae: SparseAutoencoder, aux_tokens: int):
        self._mask = mask = sae.tokens_since_fired > aux_tokens
        self._room = sae.execution.dead_room if mask.is_cuda and sae.execution.retaken else None
        self._count = mask.sum() if mask.is_cuda else None
        self._places = Late(self._count) if self._count is not None and self._room is None else None
        if self._room is not None and self._count is not None:
            self._places = min(self._room.of(self._count), len(mask))

    def latents(self) -> Int[Tensor, " dead"]:
        if self._places is None:
            return self._mask.nonzero().squeeze(1)
        places = self._places.read() if isinstance(self._places, Late) else self._places
        if places == 0:
            return self._mask.new_empty(0, dtype=torch.long)
        return self._mask.sort(descending=True, stable=True).indices[:places]

    def alone(self, bias: Float[Tensor, " dead"], latents: Int[Tensor, " dead"]) -> Float[Tensor, " dead"]:
        """b_enc of `latents`, with which those that are not dead are never above 0."""
        return bias if self._room is None else bias.masked_fill(~self._mask[latents], -torch.inf)

    def if_any(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss, or 0 where none is dead."""
        return loss if self._room is None or self._count is None else torch.where(self._count > 0, loss, 0.0)


def auxk(
    sae: SparseAutoencoder, x: Float[Tensor, "batch _"], x_hat: Float[Tensor, "batch d_out"], dead: Dead,
    *, alpha: float, k_aux: int,
) -> Float[Tensor, ""]:
    """The loss on a batch."""
    latents = dead.latents()
    k = min(k_aux, len(latents))
    if k == 0 or alpha == 0:
        return x.new_zeros(())
    y, x = sae.targets(x), sae.inputs(x)
    residual, bias = y - x_hat, dead.alone(sae.b_enc[latents], latents)
    variance, error = _batch_moments(y, residual, sae.execution.ranks)
    left = _error_over_a_list(sae, x, residual, latents, bias, k) if x.is_cuda else None
    left = _dense_error(sae, x, residual, latents, bias, k) if left is None else left
    return dead.if_any(alpha * variance * (left / error))


def _dense_error(
    sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"], residual: Float[Tensor, "batch d_out"], dead: Int[Tensor, " dead"],
    bias: Float[Tensor, " dead"], k: int,
) -> Float[Tensor, ""]:
    """||e - e_hat||^2, mean over the batch, by products with all dead latents."""
    W_enc_T, W_dec = (_Rows.apply(matrix, dead, sae.execution.deferred_gradients) for matrix in (sae.W_enc_T, sae.W_dec))
    pi = torch.relu(F.linear(x - sae.pre_bias, W_enc_T, bias))
    f = pi if k == len(dead) else pi * kept(pi.detach(), None, k)
    return (residual - f @ W_dec).square().sum(1).mean()


class _Rows(torch.autograd.Function):
    """Some rows of a parameter, each once. Their gradient is a list with an entry for each, in place of a whole matrix."""

    @staticmethod
    def forward(ctx, matrix, which, deferred):
        ctx.save_for_backward(matrix, which)
        ctx.deferred = deferred
        return matrix[which]

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        matrix, which = ctx.saved_tensors
        if ctx.deferred is None:
            return torch.zeros_like(matrix).index_copy_(0, which, grad), None, None
        entries = torch.arange(len(which), device=which.device)
        starts = starts_of(which.new_zeros(len(matrix)).index_fill_(0, which, 1))
        ctx.deferred.append((matrix, Sums(which.argsort(), starts, entries, grad.new_ones(len(which)), grad)))
        return None, None, None


def _error_over_a_list(
    sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"], residual: Float[Tensor, "batch d_out"], dead: Int[Tensor, " dead"],
    bias: Float[Tensor, " dead"], k: int,
) -> Float[Tensor, ""] | None:
    """The same by the largest of them alone; None where dense products are faster, with few dead latents for each of the k."""
    pi = encode_among(x, sae.W_enc_T, sae.b_enc, sae.pre_bias, dead, bias, k, sae.execution)
    if pi is None:
        return None
    _, left = reconstruct(pi.with_values(torch.relu(pi.values)), sae.W_dec, torch.zeros_like(sae.b_dec), residual,
                          sae.execution.deferred_gradients)
    return left


@torch.no_grad()
def _batch_moments(
    x: Float[Tensor, "own d"], residual: Float[Tensor, "own d"], ranks: Ranks
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean of ||x - mean||^2 and of ||residual||^2 over the batch of all ranks."""
    batch = ranks.all_reduce_sum(len(x))
    moments = torch.cat([x.sum(0), x.square().sum().view(1)]) / batch
    squares = residual.square().sum(1).sum()
    ranks.all_reduce_([moments, squares])
    return moments[-1] - moments[:-1].square().sum(), squares / batch
