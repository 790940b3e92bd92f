"""ReLU SAE with an L1 penalty on decoder-normed latents (Anthropic, April 2024 update; Bricken et al. 2023).

    f    = ReLU(pi)
    loss = ||x - x_hat||^2 + lambda * sum_i f_i ||W_dec,i||
"""
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.latents import Latents


class ReLU(SparseAutoencoder):
    saved_as = "standard"

    def separable(self, progress: float) -> bool:
        return True

    def repeatable(self, progress: float) -> bool:
        return True

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return torch.relu(pi)

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        pi = self.preactivations(x, above=0.0, sure=True)
        return pi.with_values(torch.relu(pi.values))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        pi = self.preactivations(x, above=0.0)
        f = pi.with_values(torch.relu(pi.values))
        x_hat, error = self.reconstruct(f, x)
        norms = f.at(self.W_dec.norm(dim=1))
        return Step(f, x_hat, {
            "reconstruction": error,
            "sparsity": coefficient * f.mean_per_token(f.values * norms),
        })
