"""BatchTopK SAE (Bussmann et al. 2024, arXiv:2412.06410).

    training   f = pi at the sparsity * batch largest positive pi of the whole batch, else 0
    inference  f = pi * H(pi - theta)        theta: running mean over batches of the smallest pi that was kept
    loss       ||x - x_hat||^2 + AuxK        see auxk.py

After training it is a JumpReLU with one threshold, and is saved as one.
"""
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.auxk import auxk
from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.latents import Latents
from saesweep.arch.running_threshold import RunningThreshold
from saesweep.config.ranges import Count, Index, NotNegative


class BatchTopK(SparseAutoencoder):
    """threshold_tokens: the length of the running mean of theta; alpha, k_aux, aux_tokens: AuxK's, see topk.py."""

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

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        pi = self.preactivations(x, above=self.batch_threshold.value, sure=True)
        return pi.with_values(self.activate(pi.values))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        f = self.batch_threshold.largest(self, x)
        x_hat, error = self.reconstruct(f, x)
        auxiliary = auxk(self, x, x_hat, alpha=self.alpha, k_aux=self.k_aux, aux_tokens=self.aux_tokens)
        return Step(f, x_hat, {"reconstruction": error, "auxiliary": auxiliary})

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
    def load_exported_(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_exported_(tensors)
        self.batch_threshold.value.copy_(tensors["threshold"][0])
