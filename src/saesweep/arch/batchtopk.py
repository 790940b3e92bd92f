"""BatchTopK SAE (Bussmann et al. 2024, arXiv:2412.06410).

    training   f = pi at the sparsity * batch largest positive pi of the whole batch, else 0
    inference  f = pi * H(pi - theta)        theta: running mean over batches of the smallest pi that was kept
    loss       ||x - x_hat||^2 + AuxK        see topk.py

After training it is a JumpReLU with one threshold, and is saved as that.
"""
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.latents import Latents
from saesweep.arch.topk import auxk
from saesweep.config.ranges import Count, Index, NotNegative
from saesweep.runtime import distributed


class RunningThreshold(nn.Module):
    """Keeps the sparsity * batch largest positive pre-activations, and the running mean of the smallest one kept."""

    def __init__(self, tokens: int):
        """The mean looks back on about so many tokens."""
        super().__init__()
        self.tokens = tokens
        self.register_buffer("value", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("last", torch.tensor(0.0, dtype=torch.float64))  # of the last batch: early on it moves fast

    def largest(self, sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"]) -> Latents:
        """The sparsity * batch largest pre-activations, the rest zero; moves the running mean."""
        batch = int(distributed.all_reduce_sum(len(x)))
        count = sae.sparsity * batch
        pi = sae.preactivations(x, above=0.9 * self.last)  # those near the last batch's smallest, which are few
        values = _positive(pi)
        if distributed.all_reduce_sum(len(values)) < count:
            pi = sae.preactivations(x, above=0.0)
            values = _positive(pi)
        values = distributed.all_gather_values(values)  # the batch of all ranks
        count = min(count, values.numel())
        if count == 0:
            return pi
        smallest = values.kthvalue(values.numel() - count + 1).values
        new = smallest.to(self.value)
        self.last.copy_(new)
        self.value.copy_(torch.where(self.value > 0, self.value.lerp(new, min(1.0, batch / self.tokens)), new))
        return pi.with_values(torch.where(pi.values >= smallest, pi.values, 0.0))


def _positive(pi: Latents) -> Float[Tensor, " n"]:
    values = pi.values.detach().flatten()
    return values[values > 0]


class BatchTopK(SparseAutoencoder):
    """alpha, k_aux, aux_tokens: AuxK's, see topk.py."""

    saved_as = "jumprelu"

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        threshold_tokens: Count, alpha: NotNegative, k_aux: Count, aux_tokens: Index,
    ):
        super().__init__(d_in, d_sae, sparsity)
        self.alpha, self.k_aux, self.aux_tokens = alpha, k_aux, aux_tokens
        self.batch_threshold = RunningThreshold(threshold_tokens)

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return pi * (pi > self.batch_threshold.value.to(pi))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        f = self.batch_threshold.largest(self, x)
        x_hat, error = self.reconstruct(f, x)
        return Step(f, x_hat, {"reconstruction": error, "auxiliary": auxk(self, x, x_hat)})

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return super().margin(x) - self.batch_threshold.value.to(x)

    @torch.no_grad()
    def raise_thresholds_(self, amount: float) -> None:
        self.batch_threshold.value.add_(amount).clamp_(min=0)

    @torch.no_grad()
    def fold_(self, mean: Float[Tensor, " d_in"], scale: float) -> None:
        super().fold_(mean, scale)
        self.batch_threshold.value.mul_(scale)

    def exported(self) -> dict[str, Tensor]:
        constant = torch.full((self.d_sae,), float(self.batch_threshold.value))
        return super().exported() | {"threshold": constant}

    @torch.no_grad()
    def take_(self, tensors: Mapping[str, Tensor]) -> None:
        super().take_(tensors)
        self.batch_threshold.value.copy_(tensors["threshold"][0])
