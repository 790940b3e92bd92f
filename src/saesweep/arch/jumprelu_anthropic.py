"""JumpReLU as Anthropic trains it (Circuits Updates, January 2025).

    loss = ||x - x_hat||^2 + lambda sum_i tanh(c f_i) + lambda_P sum_i ReLU(theta_i - pi_i)

    d JumpReLU / d pi    ~ H(pi - theta) + (theta / eps) K((pi - theta) / eps)
    d JumpReLU / d theta ~               - (theta / eps) K((pi - theta) / eps)

So the gradient through the window reaches all parameters, and that of the penalty, which is a smooth function of f, the encoder
too; H, K and eps as in jumprelu.py. Their factors ||W_dec,i|| of f_i and of the last term are 1 here.

The last term, the pre-activation loss, moves latents that are not active towards their thresholds. It needs no product with all
of W_enc for every token, since its sum over all latents is linear in the batch's mean of x:

    sum over i not active of (theta_i - pi_i) = sum over all i of (theta_i - pi_i) + sum over i active of (pi_i - theta_i)

frequency_scale, a number s, replaces the penalty by sum_i q_i (1 + q_i / s), q_i the batch's mean of tanh(c f_i), which makes
latents that fire often pay more (tanh-quad, OpenMOSS' Llamascopium).

eps / 2 exceeds theta, and the window contains negative pi. theta is kept at its initial value or more: at 0 its gradient would
vanish. (Anthropic train its logarithm.)
"""
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import Step
from saesweep.arch.jumprelu import JumpReLU, ThresholdedReLU
from saesweep.arch.latents import Latents
from saesweep.config.ranges import Count, NotNegative, Positive, Share


class _JumpReLUToAll(ThresholdedReLU):
    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        pi, theta = ctx.saved_tensors
        window = ((pi - theta).abs() < ctx.eps / 2) & (pi != 0)  # 0 is an entry that is not kept
        through = (theta / ctx.eps) * window * grad
        return grad * (pi > theta) + through, -through, None


def jumprelu_to_all(pi: Float[Tensor, "*n"], theta: Float[Tensor, "*n"], eps: float) -> Float[Tensor, "*n"]:
    """pi where it exceeds theta, else 0; elementwise, with a pseudo-derivative in pi and in theta."""
    return _JumpReLUToAll.apply(pi, theta, eps)


class AnthropicJumpReLU(JumpReLU):
    """slope: c; preactivation: lambda_P; relative: these two, bandwidth and init_threshold are in Anthropic's units, in which
    E||x||^2 = d_in, and are converted to E||x||^2 = 1. The other arguments are JumpReLU's."""

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        bandwidth: Positive, init_threshold: Positive, relative: bool, slope: Positive, preactivation: NotNegative,
        warm_start: Share, threshold_tokens: Count, frequency_scale: Positive | None = None,
    ):
        super().__init__(d_in, d_sae, sparsity, bandwidth=bandwidth, init_threshold=init_threshold, relative=relative,
                         warm_start=warm_start, threshold_tokens=threshold_tokens, frequency_scale=frequency_scale)
        self.slope, self.preactivation = slope / self.unit, preactivation * self.unit
        self.lowest = init_threshold * self.unit

    def separable(self, progress: float) -> bool:
        return progress >= self.warm_start

    def repeatable(self, progress: float) -> bool:
        return progress >= self.warm_start

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        if progress < self.warm_start:
            step = self._batch_step(x)
            return step._replace(losses=step.losses | {"auxiliary": x.new_zeros(())})
        pi = self.preactivations(x, above=self.threshold - self.bandwidth / 2)
        theta = pi.at(self.threshold)
        f = pi.with_values(jumprelu_to_all(pi.values, theta, self.bandwidth))
        x_hat, error = self.reconstruct(f, x)
        return Step(f, x_hat, {
            "reconstruction": error,
            "sparsity": coefficient * self.penalty(f, pi, theta),
            "auxiliary": self.preactivation * self.below_threshold(x, pi, theta),
        })

    def penalty(self, f: Latents, pi: Latents, theta: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        return self.by_frequency(f, torch.tanh(self.slope * f.values))

    def below_threshold(
        self, x: Float[Tensor, "batch d_in"], pi: Latents, theta: Float[Tensor, "..."]
    ) -> Float[Tensor, ""]:
        """sum_i ReLU(theta_i - pi_i) of all latents, mean over tokens."""
        mean = self.inputs(x).mean(0) - self.pre_bias
        of_all = self.threshold.sum() - self.b_enc.sum() - self.W_enc_T.sum(0) @ mean
        return of_all + pi.mean_per_token(torch.relu(pi.values - theta))

    @torch.no_grad()
    def constrain_(self) -> None:
        self.threshold.clamp_(min=self.lowest)
