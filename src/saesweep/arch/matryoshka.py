"""Matryoshka BatchTopK SAE (Bussmann et al. 2025, arXiv:2503.17547).

    m_1 < ... < m_G = d_sae              the prefixes
    x_hat_m = f[:, :m] W_dec[:m] + b_dec
    loss    = sum over m of ||x - x_hat_m||^2 + AuxK          AuxK of all latents, see auxk.py

The latents are BatchTopK's. The first m alone have to reconstruct as well as they can, so that they learn what is general and
the later ones what is special: a latent is not silent where a special case of it has a latent too. The paper's weights are
1/G; here they are 1, so that the error of all latents is that of the other architectures. It matters only beside AuxK. The
errors of the other prefixes are logged as one loss, `prefixes`; the evaluation measures each of them (evaluation/parts.py).
"""
import copy

from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.auxk import Dead, auxk
from saesweep.arch.base import Step
from saesweep.arch.batchtopk import BatchTopK
from saesweep.arch.nested import prefix_levels, reconstruct_nested
from saesweep.config.ranges import Count, Index, NotNegative, Positive, Share, Shares, parts_of


class Matryoshka(BatchTopK):
    """prefixes: as shares of d_sae; the other arguments are BatchTopK's."""

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        prefixes: Shares, threshold_tokens: Count, alpha: NotNegative, k_aux: Count, aux_tokens: Index,
        frequency_limit: Share | None = None, handicap_step: Positive = 0.01,
    ):
        super().__init__(d_in, d_sae, sparsity, threshold_tokens=threshold_tokens, alpha=alpha, k_aux=k_aux,
                         aux_tokens=aux_tokens, frequency_limit=frequency_limit, handicap_step=handicap_step)
        self.prefixes = tuple(parts_of(d_sae, prefixes))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        dead = Dead(self, self.aux_tokens)
        f = self.select(x)
        x_hat, errors = reconstruct_nested(self, f, x, prefix_levels(self), len(self.prefixes))
        auxiliary = auxk(self, x, x_hat, dead, alpha=self.alpha, k_aux=self.k_aux)
        return Step(f, x_hat, {"reconstruction": errors[-1], "prefixes": errors[:-1].sum(), "auxiliary": auxiliary})

    def prefix(self, latents: int) -> "Matryoshka":
        """The SAE of the first `latents` latents, any number of them, with their encodings unchanged."""
        if not 1 <= latents <= self.d_sae:
            raise ValueError(f"prefix({latents}): the SAE has {self.d_sae} latents; those that training made usable alone are "
                             f"the first {', '.join(map(str, self.prefixes))}")
        sae = copy.deepcopy(self)
        for name in ("W_dec", "W_enc_T", "b_enc"):
            of_all = getattr(self, name)
            setattr(sae, name, nn.Parameter(of_all.detach()[:latents].clone(), of_all.requires_grad))
        sae.tokens_since_fired = self.tokens_since_fired[:latents].clone()
        if sae.handicap is not None:
            sae.handicap.value, sae.handicap.frequency = sae.handicap.value[:latents], sae.handicap.frequency[:latents]
        sae.d_sae, sae.prefixes = latents, (*(m for m in self.prefixes if m < latents), latents)
        return sae
