"""Gated SAE (Rajamanoharan et al. 2024, arXiv:2404.16014, section 3.2), weights tied.

    pi    = u W_gate + b_gate                          which latents are active
    f     = H(pi) * ReLU(exp(r_mag) * u W_gate + b_mag)     and how strongly
    loss  = ||x - x_hat(f)||^2 + lambda * sum_i ReLU(pi_i) + ||x - x_frozen(ReLU(pi))||^2

x_frozen decodes with W_dec and b_dec held constant: the third term trains the gate alone.
"""
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.latents import Latents


class Gated(SparseAutoencoder):
    """W_enc is W_gate and b_enc is b_gate."""

    saved_as = "gated"
    latent_units = ("b_enc", "b_mag")

    def __init__(self, d_in: int, d_sae: int, sparsity: int):
        super().__init__(d_in, d_sae, sparsity)
        self.r_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))

    def separable(self, progress: float) -> bool:
        return True

    def repeatable(self, progress: float) -> bool:
        return True

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return torch.relu(self._magnitude(pi)) * (pi > 0)

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        pi = self.preactivations(x, above=0.0, sure=True)
        return pi.with_values(torch.relu(self._magnitude_at(pi)) * (pi.values > 0))

    def _magnitude_at(self, pi: Latents) -> Float[Tensor, "..."]:
        return pi.at(self.r_mag).exp() * (pi.values - pi.at(self.b_enc)) + pi.at(self.b_mag)

    def _magnitude(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return self.r_mag.exp() * (pi - self.b_enc) + self.b_mag

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        pi = self.preactivations(x, above=0.0)
        gate = torch.relu(pi.values)
        f = pi.with_values(torch.relu(self._magnitude_at(pi)) * (gate > 0))
        x_hat, error = self.reconstruct(f, x)
        _, gate_error = self.reconstruct(pi.with_values(gate), x, frozen=True)
        return Step(f, x_hat, {
            "reconstruction": error,
            "sparsity": coefficient * pi.mean_per_token(gate),
            "auxiliary": gate_error,
        })

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        pi = super().margin(x)
        return pi.masked_fill(self._magnitude(pi) <= 0, -torch.inf)

    @torch.no_grad()
    def shift_preactivations_(self, amount: Float[Tensor, " d_sae"]) -> None:
        super().shift_preactivations_(amount)
        self.b_mag += self.r_mag.exp() * amount

    def exported(self) -> dict[str, Tensor]:
        tensors = super().exported()
        return tensors | {"b_gate": tensors.pop("b_enc"), "r_mag": self.r_mag.detach().float().cpu()}

    @torch.no_grad()
    def load_exported_(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_exported_({**tensors, "b_enc": tensors["b_gate"]})
        self.r_mag.copy_(tensors["r_mag"])
