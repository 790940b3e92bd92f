"""The last step of a run with a target: one number per SAE, added to its thresholds, so that L0 is met on unseen text.

Training brings L0 to its target on the batches it trains on. Those are not what users measure on: on text that was not
trained on, and with a learning rate that has fallen to zero, L0 comes out a few per cent off. What is seen here is
held-out text of documents that evaluation does not use.
"""
import math

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder


@torch.no_grad()
def meet_l0_(sae: SparseAutoencoder, x: Float[Tensor, "tokens d_in"]) -> float:
    """Shift the thresholds so that `sparsity` latents per token are active on x (training units); returns the shift."""
    target = sae.sparsity * len(x)
    for factor in (1, 4, 16, math.inf):
        span = factor * sae.d_in**-0.5
        near = [margin[margin > -span] for margin in map(sae.margin, x.split(1024))]
        if sum(map(len, near)) > target:
            break
    else:
        return 0.0  # not even without thresholds are so many active
    last_in, first_out = torch.cat(near).topk(target + 1).values[-2:]
    shift = float(last_in + first_out) / 2
    sae.raise_thresholds_(shift)
    return shift
