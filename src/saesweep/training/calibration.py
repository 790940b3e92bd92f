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
    """Shift the thresholds so that `sparsity` latents per token are active on x (training units); returns the shift.

    Only the largest margins are held: as many as there are to be active.
    """
    target, largest, floor = sae.sparsity * len(x), x.new_empty(0), -math.inf
    for part in x.split(1024):
        margin = sae.margin(part)
        largest = torch.cat([largest, margin[margin > floor]])
        if len(largest) > target:
            largest = largest.topk(target + 1).values
            floor = float(largest[-1])
    if len(largest) <= target:
        return 0.0  # there are fewer margins than are to be active
    shift = float(largest[-2:].sum()) / 2
    sae.raise_thresholds_(shift)
    return shift
