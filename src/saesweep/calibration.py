"""The last step of a run with a target: one number per SAE, added to its thresholds, so that L0 is met on unseen text.

Training brings L0 to its target on the batches it trains on. Those are not what users measure on: on text that was not
trained on, and with a learning rate that has fallen to zero, L0 comes out a few per cent off. What is seen here is
held-out text of documents that evaluation does not use.
"""
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder


@torch.no_grad()
def meet_l0_(sae: SparseAutoencoder, x: Float[Tensor, "tokens d_in"]) -> float:
    """Shift the thresholds so that `sparsity` latents per token are active on x (training units); returns the shift."""
    target = sae.sparsity * len(x)
    span = sae.d_in**-0.5
    while True:
        near = [margin[margin > -span] for margin in map(sae.margin, x.split(1024))]
        if sum(map(len, near)) >= target:
            break
        span *= 2
    candidates = torch.cat(near)
    if len(candidates) == target:
        return 0.0
    last_in, first_out = candidates.topk(target + 1).values[-2:]
    shift = float(last_in + first_out) / 2
    sae.raise_thresholds_(shift)
    return shift
