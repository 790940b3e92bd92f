"""BatchTopK's selection: the k * batch largest pre-activations of a batch, and the threshold that selects them later."""
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.latents import Latents


class RunningThreshold(nn.Module):
    """value: the running mean, over batches, of the smallest pre-activation that was kept."""

    value: Tensor
    last: Tensor

    def __init__(self, tokens: int):
        """`tokens`: the length of the running mean."""
        super().__init__()
        self.tokens = tokens
        self.register_buffer("value", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("last", torch.tensor(0.0, dtype=torch.float64))  # of the last batch: early on it moves fast
        self.known = False  # that `last` is above 0

    def largest(
        self, sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"], handicap: Float[Tensor, " d_sae"] | None = None
    ) -> Latents:
        """The sparsity * batch largest positive pre-activations, the others zero; updates the running mean.

        `handicap`, at least 0: is subtracted before they are compared; `value` is then the smallest difference.
        """
        low = 0.0 if handicap is None else handicap
        ranks = sae.execution.ranks
        batch = int(ranks.all_reduce_sum(len(x)))
        count = sae.sparsity * batch
        self.known = self.known or bool(self.last > 0)
        last = self.last if self.known else self._estimated(sae, x, handicap)
        pi = sae.preactivations(x, above=0.9 * last + low)  # few: those near the last batch's smallest
        compared, values = _compared(pi, handicap)
        if ranks.all_reduce_sum(len(values)) < count:
            pi = sae.preactivations(x, above=low)
            compared, values = _compared(pi, handicap)
        values = ranks.all_gather_values(values)
        count = min(count, values.numel())
        if count == 0:
            return pi
        smallest = kth_largest(values, count)
        new = smallest.to(self.value)
        self.last.copy_(new)
        self.known = True
        self.value.copy_(torch.where(self.value > 0, self.value.lerp(new, min(1.0, batch / self.tokens)), new))
        return pi.with_values(torch.where(compared >= smallest, pi.values, 0.0))

    @torch.no_grad()
    def _estimated(
        self, sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"], handicap: Float[Tensor, " d_sae"] | None
    ) -> Float[Tensor, ""]:
        """`last` for the first batch: 0, or that of some of its rows if a dense step cannot hold all of them."""
        ranks, stride = sae.execution.ranks, math.ceil(len(x) / sae.execution.dense_rows(sae.d_sae))
        found = torch.zeros_like(self.last)
        if stride > 1:
            rows = x[::stride]
            _, values = _compared(sae.preactivations(rows, above=0.0 if handicap is None else handicap), handicap)
            if len(values) >= (count := sae.sparsity * len(rows)):
                found += kth_largest(values, count)
        votes = (found > 0).to(found)
        ranks.all_reduce_([found, votes])
        return found / votes.clamp(min=1)


def kth_largest(values: Float[Tensor, " n"], k: int) -> Float[Tensor, ""]:
    """On a GPU by sorting: `kthvalue` of one row runs in one thread block there, and raises under deterministic algorithms."""
    if values.is_cuda:
        return values.sort(descending=True).values[k - 1]
    return values.kthvalue(values.numel() - k + 1).values


def _compared(pi: Latents, handicap: Float[Tensor, " d_sae"] | None) -> tuple[Float[Tensor, "..."], Float[Tensor, " n"]]:
    """What the latents are compared by, per entry, and its positive values."""
    compared = pi.values.detach() if handicap is None else pi.values.detach() - pi.at(handicap)
    values = compared.flatten()
    return compared, values[values > 0]
