"""The controller that brings L0 to its target by the sparsity coefficient, for architectures with a sparsity penalty.

    error           = clip(log(L0 / target), -1, 1)                       L0 of each step's batch
    log coefficient = sum of gain * error + damping * (mean error of the last steps)

This is a PI controller: with the sum the coefficient is at rest only where L0 meets the target, and the proportional term
damps the overshoot. It acts from the end of the warm-up until the last `freeze` share of the run, in which the coefficient
is constant.
"""
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Coefficient(nn.Module):
    """The sparsity coefficient over a run. `fixed`: a constant lambda, with which L0 has no target."""

    log_value: Tensor
    error: Tensor

    def __init__(
        self, target: int, *, fixed: float | None,
        start: float, power: float, gain: float, damping: float, memory: int, warmup: float, freeze: float,
    ):
        """start * target^power is the first value; warmup, freeze: the first and the last share of the run; memory: length of
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
        """The coefficient of this step, which rises linearly over the warm-up."""
        return (self.value * min(1.0, progress / self.warmup if self.warmup > 0 else 1.0)).float()

    @torch.no_grad()
    def update_(self, l0: Float[Tensor, ""], progress: float) -> None:
        """Update after a step at `progress` whose batch had this L0."""
        if self.controlled and self.warmup <= progress < 1 - self.freeze:
            error = (l0.double().clamp(min=1e-3) / self.target).log().clamp(-1, 1)
            self.log_value += self.gain * error
            self.error += (error - self.error) / self.memory
