"""The controller that brings L0 to its target for every architecture with a sparsity penalty.

    error           = clip(log(L0 / target), -1, 1)                       of each step's batch
    log coefficient = sum of gain * error + damping * (mean error of the last steps)

The sum lets the coefficient rest only where L0 meets the target; the second term keeps it from overshooting. Both act
from the end of the warm-up until `freeze`, from where on the coefficient stays as it is.
"""
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Coefficient(nn.Module):
    """The sparsity coefficient over a run; `fixed` is a published lambda, and then L0 falls where it falls."""

    def __init__(
        self, target: int, *, fixed: float | None,
        start: float, power: float, gain: float, damping: float, memory: int, warmup: float, freeze: float,
    ):
        """It starts at start * target^power; warmup, freeze: shares of the run, from its start and to its end; memory: of
        the mean error, in steps."""
        super().__init__()
        self.target, self.controlled = target, fixed is None
        self.gain, self.damping, self.memory, self.warmup, self.freeze = gain, damping, memory, warmup, freeze
        first = math.log(start * target**power if fixed is None else fixed)
        self.register_buffer("log_value", torch.tensor(first, dtype=torch.float64))
        self.register_buffer("error", torch.tensor(0.0, dtype=torch.float64))

    @property
    def value(self) -> Float[Tensor, ""]:
        return (self.log_value + self.damping * self.error).exp()

    def at(self, progress: float) -> Float[Tensor, ""]:
        """The coefficient of this step: risen linearly over the warm-up."""
        return (self.value * min(1.0, progress / self.warmup if self.warmup > 0 else 1.0)).float()

    @torch.no_grad()
    def update_(self, l0: Float[Tensor, ""], progress: float) -> None:
        """After a step at `progress`, whose batch had this L0."""
        if self.controlled and self.warmup <= progress < 1 - self.freeze:
            error = (l0.double().clamp(min=1e-3) / self.target).log().clamp(-1, 1)
            self.log_value += self.gain * error
            self.error += (error - self.error) / self.memory
