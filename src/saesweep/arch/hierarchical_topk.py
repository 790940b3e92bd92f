"""HierarchicalTopK SAE (arXiv:2505.24473): one SAE that can be read at any smaller number of active latents.

    x_hat_j = f_j W_dec + b_dec                f_j: the j largest latents of the token
    loss    = mean over j in J of ||x - x_hat_j||^2 + AuxK          see auxk.py

The latents are TopK's, and J ends with k. The mean is logged as two losses: `reconstruction`, the error of all k latents, which
other architectures have too, and `inner`, what the mean over J adds to it.
"""
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saesweep.arch.auxk import Dead, auxk
from saesweep.arch.base import Step
from saesweep.arch.latents import Latents
from saesweep.arch.nested import reconstruct_nested
from saesweep.arch.topk import TopK
from saesweep.config.ranges import Count, Index, NotNegative, Shares, parts_of


class HierarchicalTopK(TopK):
    """numbers: J, as shares of k; None: all from 1 to k. The other arguments are TopK's.

    A step holds a reconstruction of each token for every number in J. `levels` are those that the evaluation measures: J, or of
    all the powers of two.
    """

    ends: Tensor

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        numbers: Shares | None, alpha: NotNegative, k_aux: Count, aux_tokens: Index,
    ):
        super().__init__(d_in, d_sae, sparsity, alpha=alpha, k_aux=k_aux, aux_tokens=aux_tokens)
        doubled = [2**i for i in range(sparsity.bit_length()) if 2**i < sparsity]
        chosen = sorted({max(1, number) for number in parts_of(sparsity, numbers or [])})
        self.numbers = chosen or list(range(1, sparsity + 1))
        self.register_buffer("ends", torch.tensor(self.numbers), persistent=False)  # on the device: the host does not wait
        self.levels = tuple(chosen or [*doubled, sparsity])

    def repeatable(self, progress: float) -> bool:
        return True

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        dead = Dead(self, self.aux_tokens)
        pi = self.preactivations(x, largest=self.sparsity)
        f = pi.with_values(torch.relu(pi.values))
        count = len(self.numbers)
        levels = torch.bucketize(ranks(f), self.ends, right=True).clamp(max=count - 1)
        x_hat, errors = reconstruct_nested(self, f, x, levels, count)
        auxiliary = auxk(self, x, x_hat, dead, alpha=self.alpha, k_aux=self.k_aux)
        return Step(f, x_hat, {"reconstruction": errors[-1], "inner": errors.mean() - errors[-1], "auxiliary": auxiliary})


@torch.no_grad()
def ranks(f: Latents) -> Int[Tensor, "..."]:
    """For every entry, how many entries of its token are larger, or as large and before it."""
    if f.entries is None:
        return f.values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    falling = f.values.argsort(descending=True, stable=True)
    order = falling[f.entries.rows[falling].argsort(stable=True)]  # by token, and the largest first
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order), device=order.device) - f.entries.row_starts[f.entries.rows]
    return found
