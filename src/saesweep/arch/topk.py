"""TopK SAE with the AuxK loss (Gao et al. 2024, arXiv:2406.04093, sections 2.3 and A.2).

    f    = ReLU(TopK(pi))                              k = sparsity; fewer where the k-th largest is negative
    loss = ||x - x_hat||^2 + AuxK                      see auxk.py
"""
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.auxk import Dead, auxk
from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.latents import Latents
from saesweep.config.ranges import Count, Index, NotNegative


class TopK(SparseAutoencoder):
    """alpha: the weight of AuxK; k_aux: dead latents that reconstruct the residual; aux_tokens: tokens without firing after
    which a latent is dead for AuxK."""

    saved_as = "topk"
    thresholded = False

    def __init__(self, d_in: int, d_sae: int, sparsity: int, *, alpha: NotNegative, k_aux: Count, aux_tokens: Index):
        super().__init__(d_in, d_sae, sparsity)
        self.alpha, self.k_aux, self.aux_tokens = alpha, k_aux, aux_tokens

    def repeatable(self, progress: float) -> bool:
        return True

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        values, columns = pi.topk(self.sparsity, sorted=False)
        return torch.zeros_like(pi).scatter(-1, columns, torch.relu(values))

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        pi = self.preactivations(x, largest=self.sparsity, sure=True)
        return pi.with_values(torch.relu(pi.values))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        dead = Dead(self, self.aux_tokens)
        pi = self.preactivations(x, largest=self.sparsity)
        f = pi.with_values(torch.relu(pi.values))
        x_hat, error = self.reconstruct(f, x)
        auxiliary = auxk(self, x, x_hat, dead, alpha=self.alpha, k_aux=self.k_aux)
        return Step(f, x_hat, {"reconstruction": error, "auxiliary": auxiliary})
