"""A cap on how often a latent fires, for a selection of the largest pre-activations, which has no threshold to penalise.

    selected    the largest of pi_i - h_i, instead of pi_i
    h_i         starts at 0; before each batch  h_i = max(0, h_i + step * clip(p_i / limit - 1, -1, 1))

with p_i the share of the last batch's tokens on which latent i was selected. So h_i rests where latent i fires on `limit` of
the tokens, or at 0 where it fires less often, as the experts of a mixture are balanced without a loss (arXiv:2408.15664). The
gradients are those without a cap; the saved threshold of latent i is theta + h_i.
"""
import torch
from jaxtyping import Float
from torch import Tensor, nn


class Handicap(nn.Module):
    """value: h. frequency: p of the last batch."""

    value: Tensor
    frequency: Tensor

    def __init__(self, d_sae: int, limit: float, step: float):
        """`step`: in the units of the pre-activations."""
        super().__init__()
        self.limit, self.step = limit, step
        self.register_buffer("value", torch.zeros(d_sae))
        self.register_buffer("frequency", torch.zeros(d_sae))

    @torch.no_grad()
    def update_(self) -> Float[Tensor, " d_sae"]:
        """h after the last batch; before the next selection, so that the SAE encodes as it was trained to."""
        return self.value.add_(self.step * (self.frequency / self.limit - 1).clamp(-1, 1)).clamp_(min=0)
