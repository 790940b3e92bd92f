"""JumpReLU with a quadratic penalty on each token's number of active latents (Gemma Scope 2's technical paper, equation 5).

    n    = sum_i H(pi_i - theta_i)
    loss = ||x - x_hat||^2 + lambda (2 / L0*) (n - L0*)^2              L0*: the target L0, `sparsity`

A token with fewer active latents than the target lowers thresholds and one with more raises them, so lambda needs no
controller; it rises linearly from 0. E (n - L0*)^2 is (E n - L0*)^2 + Var n, and the variance grows with the mean: a large
lambda ends below the target, and makes tokens more alike. Pseudo-derivatives are those of jumprelu.py: the penalty reaches
theta alone.

The per-token form of the JumpReLU paper's appendix, (n / L0* - 1)^2, is this one with lambda / (2 L0*) for lambda.
dictionary_learning's, the square of the batch's mean, is not implemented.

frequency_scale, a number p_0, adds a penalty on latents that fire often, with p_i the share of the batch's tokens on which
latent i is active. The paper has such a second penalty, but does not print it; our reading is the part of the
quadratic-frequency penalty of jumprelu.py that is not an L0:

    lambda sum_i p_i^2 / p_0

prefixes, shares of d_sae that end with 1, add the errors of the first m latents alone (Matryoshka, arXiv:2503.17547), each with
weight 1. The paper has such a loss too, and does not print it.

    sum over m < d_sae of ||x - x_hat_m||^2             x_hat_m = f[:, :m] W_dec[:m] + b_dec
"""
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import Step
from saesweep.arch.jumprelu import JumpReLU, heaviside
from saesweep.arch.latents import Latents
from saesweep.arch.nested import prefix_levels, reconstruct_nested
from saesweep.config.ranges import Count, NotNegative, Positive, Share, Shares, parts_of


class QuadraticL0JumpReLU(JumpReLU):
    """weight: lambda; ramp: the share of the run over which it rises; prefixes: None is none; the others are JumpReLU's."""

    def __init__(
        self, d_in: int, d_sae: int, sparsity: int, *,
        bandwidth: Positive, init_threshold: NotNegative, relative: bool, weight: Positive, ramp: Share,
        prefixes: Shares | None, warm_start: Share, threshold_tokens: Count, frequency_scale: Positive | None = None,
    ):
        super().__init__(d_in, d_sae, sparsity, bandwidth=bandwidth, init_threshold=init_threshold, relative=relative,
                         warm_start=warm_start, threshold_tokens=threshold_tokens, frequency_scale=frequency_scale)
        self.weight, self.ramp = weight, ramp
        self.prefixes = tuple(parts_of(d_sae, prefixes or []))

    def separable(self, progress: float) -> bool:
        return progress >= self.warm_start

    def repeatable(self, progress: float) -> bool:
        return progress >= max(self.warm_start, self.ramp) and not self.prefixes  # whose dense latents are picked by a mask

    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        weight = self.weight * (min(1.0, progress / self.ramp) if self.ramp > 0 else 1.0)
        step = super().step(x, x.new_full((), weight), progress)
        losses = {"reconstruction": step.losses["reconstruction"], "l0": step.losses["sparsity"], "prefixes": x.new_zeros(())}
        if self.prefixes:
            _, errors = reconstruct_nested(self, step.latents, x, prefix_levels(self), len(self.prefixes))
            losses["prefixes"] = errors[:-1].sum()
        return step._replace(losses=losses)

    def penalty(self, f: Latents, pi: Latents, theta: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        active = heaviside(pi.values, theta, self.bandwidth)
        excess = f.per_token(active) - self.sparsity
        penalty = 2 / self.sparsity * excess.square().mean()
        if self.frequency_scale is None:
            return penalty
        p = f.with_values(active).mean_per_latent(self.execution.ranks)
        squares = 2 * f.mean_per_token(active * f.at(p)) - p.square().sum()  # p is a constant: exact in value and gradient
        return penalty + squares / self.frequency_scale
