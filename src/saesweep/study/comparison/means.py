"""The mean of a score over the features of an SAE.

Feature i was sampled with probability pi_i, so it stands for w_i = 1/pi_i eligible latents; f_i is the share of tokens on
which it fires:

    uniform        sum w s / sum w         of a latent
    by_frequency   sum w f s / sum w f     of an activation
    with_zeros     uniform * share of eligible latents: the mean over all latents, dead and rare ones counted as 0
    several_tokens uniform, of the latents whose strongest activations are not all on one token: a latent of a single token is
                   simple to explain, even in a model with shuffled weights

A missing score is left out, and its share is a column of its own. The variance is that of a sample from features that the
SAE might have had (delete-one-feature jackknife, degrees of freedom from Kish's effective sample size), without a
correction for the finite number of latents: an SAE of few features is not known exactly.
"""
from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from saesweep.report.intervals import Variance, document_variance, effective_sample_size

Features = Float[Array, " features"]


def mean(score: Features, weight: Features) -> float:
    """NaN where no score is known."""
    known = np.isfinite(score) & (weight > 0)
    return float((weight[known] * score[known]).sum() / weight[known].sum()) if known.any() else float("nan")


def by_frequency(score: Features, weight: Features, frequency: Features) -> float:
    return mean(score, weight * frequency)


def mean_variance(score: Features, weight: Features) -> Variance | None:
    """Of the mean, over features; None of fewer than 10 features."""
    known = np.isfinite(score) & (weight > 0)
    s, w = score[known], weight[known]
    if len(s) < 2:
        return None
    without = ((w * s).sum() - w * s) / (w.sum() - w)
    return document_variance(np.append(mean(s, w), without), w)


def effective_count(score: Features, weight: Features) -> float:
    """The number of features of equal weight that say as much about the mean."""
    known = np.isfinite(score) & (weight > 0)
    return effective_sample_size(weight[known]) if known.any() else 0.0
