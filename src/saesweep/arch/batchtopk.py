"""BatchTopK SAE (Bussmann et al. 2024, arXiv:2412.06410).

    training   f = pi at the sparsity * batch largest positive pi of the whole batch, else 0
    inference  f = pi * H(pi - theta)        theta: running mean over batches of the smallest pi that was kept
    loss       ||x - x_hat||^2 + AuxK        see auxk.py

After training it is a JumpReLU with one threshold, and is saved as one. frequency_limit caps how often a latent fires, by a
handicap h_i (handicap.py): pi - h is selected by, and theta + h_i are the thresholds.
"""
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.auxk import Dead, auxk
from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.handicap import Handicap
from saesweep.arch.latents import Latents
from saesweep.arch.running_threshold import RunningThreshold
from saesweep.config.ranges import Count, Index, NotNegative, Positive, Share


class BatchTopK(SparseAutoencoder):
    """threshold_tokens: the length of the running mean of theta; alpha, k_aux, aux_tokens: AuxK's, see topk.py;
    handicap_step: in units of 1 / sqrt(d_in)."""

    saved_as = "jumprelu"

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        threshold_tokens: Count, alpha: NotNegative, k_aux: Count, aux_tokens: Index,
        frequency_limit: Share | None = None, handicap_step: Positive = 0.01,  # a config of before these keys has none
    ):
        super().__init__(d_in, d_sae, sparsity)
        self.alpha, self.k_aux, self.aux_tokens = alpha, k_aux, aux_tokens
        self.batch_threshold = RunningThreshold(threshold_tokens)
        step = handicap_step / math.sqrt(d_in)
        self.handicap = None if frequency_limit is None else Handicap(d_sae, frequency_limit, step)

    def thresholds(self, like: Tensor) -> Float[Tensor, "..."]:
        """Theta of every latent, or one number without a handicap."""
        value = self.batch_threshold.value.to(like)
        return value if self.handicap is None else value + self.handicap.value.to(like)

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return pi * (pi > self.thresholds(pi))

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        theta = self.thresholds(x)
        pi = self.preactivations(x, above=theta, sure=True)
        return pi.with_values(pi.values * (pi.values > (theta if self.handicap is None else pi.at(theta))))

    def select(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        """The latents of a training batch; updates the threshold and the handicap."""
        f = self.batch_threshold.largest(self, x, None if self.handicap is None else self.handicap.update_())
        if self.handicap is not None:
            self.handicap.frequency.copy_(f.frequency(self.execution.ranks))
        return f

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        dead = Dead(self, self.aux_tokens)
        f = self.select(x)
        x_hat, error = self.reconstruct(f, x)
        auxiliary = auxk(self, x, x_hat, dead, alpha=self.alpha, k_aux=self.k_aux)
        return Step(f, x_hat, {"reconstruction": error, "auxiliary": auxiliary})

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return super().margin(x) - self.thresholds(x)

    @torch.no_grad()
    def raise_thresholds_(self, amount: float) -> None:
        self.batch_threshold.value.add_(amount).clamp_(min=0)

    @torch.no_grad()
    def fold_(self, mean: Float[Tensor, " d_in"], scale: float) -> None:
        super().fold_(mean, scale)
        self.batch_threshold.value.mul_(scale)
        if self.handicap is not None:
            self.handicap.value.mul_(scale)

    def exported(self) -> dict[str, Tensor]:
        return super().exported() | {"threshold": self.thresholds(torch.zeros(())).cpu().expand(self.d_sae).contiguous()}

    @torch.no_grad()
    def load_exported_(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_exported_(tensors)
        self.batch_threshold.value.copy_(tensors["threshold"].min())
        if self.handicap is not None:
            self.handicap.value.copy_(tensors["threshold"] - tensors["threshold"].min())
