"""JumpReLU SAE (Rajamanoharan et al. 2024, arXiv:2407.14435, sections 2 to 4).

    f    = pi * H(pi - theta)                          theta > 0, one threshold per latent
    loss = ||x - x_hat||^2 + lambda * sum_i H(pi_i - theta_i)

H, the Heaviside step, has no useful gradient. With K the rectangle |u| < 1/2 and eps the bandwidth:

    d JumpReLU / d pi    = H(pi - theta)
    d JumpReLU / d theta ~ -(theta / eps) K((pi - theta) / eps)
    d H        / d theta ~ -(1 / eps)     K((pi - theta) / eps)        the penalty reaches theta alone

frequency_scale, a number p_0, makes latents that fire often pay more (Google DeepMind's interpretability team, progress
update 2, March 2025, "Removing High Frequency Latents from JumpReLU SAEs"), with p_i the share of the batch's tokens on which
H(pi_i - theta_i) = 1:

    penalty = sum_i p_i (1 + p_i / p_0)                  in place of sum_i p_i, which is the L0
            = sum_i p_i w_i - sum_i p_i^2 / p_0          w_i = 1 + 2 p_i / p_0, what an activation of latent i costs

In the second form p_i in w_i and in the last sum is a constant: value and gradient are exact, also over several ranks.

theta is kept at eps / 2 or more, so that the window contains no negative pi and the paper's ReLU on pi changes nothing.

warm_start (not in the paper; 0 leaves it out): for this share of the run the `sparsity * batch` largest pi of the batch are
the active ones, as in BatchTopK, and every theta is the threshold found so far. With it short runs end close to TopK.
"""
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.arch.latents import Latents
from saesweep.arch.running_threshold import RunningThreshold
from saesweep.config.ranges import Count, NotNegative, Positive, Share


class ThresholdedReLU(torch.autograd.Function):
    """pi H(pi - theta), with a pseudo-derivative in theta; a subclass may define another."""

    @staticmethod
    def forward(ctx, pi, theta, eps):
        ctx.save_for_backward(pi, theta)
        ctx.eps = eps
        return pi * (pi > theta)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        pi, theta = ctx.saved_tensors
        window = (pi - theta).abs() < ctx.eps / 2
        return grad * (pi > theta), -(theta / ctx.eps) * window * grad, None


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pi, theta, eps):
        ctx.save_for_backward(pi, theta)
        ctx.eps = eps
        return (pi > theta).to(pi)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        pi, theta = ctx.saved_tensors
        window = (pi - theta).abs() < ctx.eps / 2
        return None, -(1 / ctx.eps) * window * grad, None


def jumprelu(pi: Float[Tensor, "*n"], theta: Float[Tensor, "*n"], eps: float) -> Float[Tensor, "*n"]:
    """pi where it exceeds theta, else 0; elementwise, with a pseudo-derivative in theta."""
    return ThresholdedReLU.apply(pi, theta, eps)


def heaviside(pi: Float[Tensor, "*n"], theta: Float[Tensor, "*n"], eps: float) -> Float[Tensor, "*n"]:
    """H(pi - theta); elementwise, with no gradient in pi and a pseudo-derivative in theta."""
    return _Heaviside.apply(pi, theta, eps)


class JumpReLU(SparseAutoencoder):
    """bandwidth, init_threshold: in units of 1 / sqrt(d_in) if `relative`, else in those of the input; threshold_tokens: the
    length of the running mean of the warm start's threshold; frequency_scale: p_0, well above sparsity / d_sae, or None."""

    saved_as = "jumprelu"
    latent_units = ("b_enc", "threshold")
    unclipped = ("threshold",)

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        bandwidth: Positive, init_threshold: NotNegative, relative: bool, warm_start: Share,
        threshold_tokens: Count, frequency_scale: Positive | None = None,
    ):
        super().__init__(d_in, d_sae, sparsity)
        self.unit = 1 / math.sqrt(d_in) if relative else 1.0
        self.bandwidth, self.warm_start, self.frequency_scale = bandwidth * self.unit, warm_start, frequency_scale
        self.threshold = nn.Parameter(torch.full((d_sae,), init_threshold * self.unit))
        self.batch_threshold = RunningThreshold(threshold_tokens)

    def separable(self, progress: float) -> bool:
        return progress >= self.warm_start

    def repeatable(self, progress: float) -> bool:
        return progress >= self.warm_start

    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return pi * (pi > self.threshold)

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        pi = self.preactivations(x, above=self.threshold, sure=True)
        return pi.with_values(pi.values * (pi.values > pi.at(self.threshold)))

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        if progress < self.warm_start:
            return self._batch_step(x)
        pi = self.preactivations(x, above=self.threshold - self.bandwidth / 2)  # the lower end of the window
        theta = pi.at(self.threshold)
        f = pi.with_values(jumprelu(pi.values, theta, self.bandwidth))
        penalty = self.penalty(f, pi, theta)
        x_hat, error = self.reconstruct(f, x)
        return Step(f, x_hat, {"reconstruction": error, "sparsity": coefficient * penalty})

    def penalty(self, f: Latents, pi: Latents, theta: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """The sparsity penalty before its coefficient, summed over latents, averaged over tokens. Subclasses may override it.

        f.values, pi.values and theta have one value for each entry that has a value or a pseudo-derivative.
        """
        return self.by_frequency(f, heaviside(pi.values, theta, self.bandwidth))

    def by_frequency(self, f: Latents, active: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """sum_i p_i (1 + p_i / p_0), or sum_i p_i without a frequency_scale; p_i: the batch's mean of latent i's `active`."""
        if self.frequency_scale is None:
            return f.mean_per_token(active)
        p = f.with_values(active).mean_per_latent(self.execution.ranks)
        each = active * f.at(1 + 2 * p / self.frequency_scale)
        return f.mean_per_token(each) - p.square().sum() / self.frequency_scale

    def _batch_step(self, x: Float[Tensor, "batch d_in"]) -> Step:
        f = self.batch_threshold.largest(self, x)
        self.threshold.data.fill_(self.batch_threshold.value)
        x_hat, error = self.reconstruct(f, x)
        return Step(f, x_hat, {"reconstruction": error, "sparsity": x.new_zeros(())})

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return super().margin(x) - self.threshold

    @torch.no_grad()
    def raise_thresholds_(self, amount: float) -> None:
        self.threshold.add_(amount).clamp_(min=0)

    @torch.no_grad()
    def constrain_(self) -> None:
        self.threshold.clamp_(min=self.bandwidth / 2)
