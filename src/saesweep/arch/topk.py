"""TopK SAE with the AuxK loss (Gao et al. 2024, arXiv:2406.04093, sections 2.3 and A.2).

    f    = ReLU(TopK(pi))                              k = sparsity; fewer where the k-th largest is negative
    loss = ||x - x_hat||^2 + alpha * ||x - mean||^2 * ||e - e_hat||^2 / ||e||^2

e = x - x_hat is held constant, e_hat decodes the k_aux largest pi among the dead latents without b_dec, and AuxK is
left out while no latent is dead. Over the variance of x this is the paper's sum of two shares, times a constant: 1 in
training units, where x is centred.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.ops.plain import kept
from saesweep.config.ranges import Count, Index, NotNegative
from saesweep.runtime import distributed


class TopK(SparseAutoencoder):
    """alpha: the weight of AuxK; k_aux: latents that explain the residual; aux_tokens: a latent that has not fired for so
    many tokens is dead for AuxK."""

    saved_as = "topk"
    thresholded = False

    def __init__(self, d_in: int, d_sae: int, sparsity: int, *, alpha: NotNegative, k_aux: Count, aux_tokens: Index):
        super().__init__(d_in, d_sae, sparsity)
        self.alpha, self.k_aux, self.aux_tokens = alpha, k_aux, aux_tokens

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        values, columns = pi.topk(self.sparsity, sorted=False)
        return torch.zeros_like(pi).scatter(-1, columns, torch.relu(values))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        pi = self.preactivations(x, largest=self.sparsity)
        f = pi.with_values(torch.relu(pi.values))
        x_hat, error = self.reconstruct(f, x)
        return Step(f, x_hat, {"reconstruction": error, "auxiliary": auxk(self, x, x_hat)})


def auxk(sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
    """alpha times the variance of x times the share of the residual that the dead latents' best k_aux leave unexplained;
    0 with none dead."""
    dead = (sae.tokens_since_fired > sae.aux_tokens).nonzero().squeeze(1)
    k = min(sae.k_aux, len(dead))
    if k == 0 or sae.alpha == 0:
        return x.new_zeros(())
    W_enc_T, W_dec, b_enc = F.embedding(dead, sae.W_enc_T), F.embedding(dead, sae.W_dec), sae.b_enc[dead]
    pi = torch.relu(F.linear(x - sae.b_dec, W_enc_T, b_enc))
    f = pi if k == len(dead) else pi * kept(pi.detach(), None, k)
    residual = x - x_hat
    share = (residual - f @ W_dec).square().sum(1).mean() / distributed.mean(residual.square().sum(1))
    return sae.alpha * distributed.variance(x) * share
