"""The last step of a run with a target L0: one number per SAE is added to its thresholds, so that held-out L0 is the target.

Training brings L0 to its target on training batches. On held-out text, and after the learning rate has fallen to zero, L0 is
a few per cent off. The calibration text is held out, from documents that evaluation does not use.
"""
import math

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder


@torch.no_grad()
def meet_l0_(sae: SparseAutoencoder, x: Float[Tensor, "tokens d_in"]) -> float:
    """Shift the thresholds so that `sparsity` latents per token are active on x (training units); returns the shift.

    Returns 0 and changes nothing if there are fewer margins than that. Memory: the sparsity * tokens largest margins.
    """
    target, largest, floor = sae.sparsity * len(x), x.new_empty(0), -math.inf
    for part in x.split(1024):
        margin = sae.margin(part)
        largest = torch.cat([largest, margin[margin > floor]])
        if len(largest) > target:
            largest = largest.topk(target + 1).values
            floor = float(largest[-1])
    if len(largest) <= target:
        return 0.0
    shift = float(largest[-2:].sum()) / 2
    sae.raise_thresholds_(shift)
    return shift
