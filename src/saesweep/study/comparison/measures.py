"""Scores as functions of sums over tokens, so that they can be computed again for any choice of documents.

Each sum is an array whose first axis is the latents (or the labels, for a score of the whole SAE); so is the score. NaN
where it is not defined.
"""
from __future__ import annotations

import numpy as np
from numpy import ndarray as Array


def pearson(n: Array, a: Array, y: Array, aa: Array, yy: Array, ay: Array) -> Array:
    """r between activations a and predictions y: number of tokens, and the sums of a, y, a^2, y^2 and a y over them.

    0 where the prediction is constant; NaN where the latent is.
    """
    variance_a, variance_y = n * aa - a * a, n * yy - y * y
    constant_a, constant_y = (v <= 1e-9 * n * square for v, square in ((variance_a, aa), (variance_y, yy)))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (n * ay - a * y) / np.sqrt(variance_a * variance_y)
    return np.where(constant_a, np.nan, np.where(constant_y, 0.0, r))


def f1(tp: Array, fp: Array, fn: Array) -> Array:
    """2 tp / (2 tp + fp + fn); NaN where the label does not occur."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def balanced_accuracy(tp: Array, fp: Array, tn: Array, fn: Array) -> Array:
    """The mean of the shares of positives and of negatives that are right; NaN where one of the two does not occur."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((tp + fn > 0) & (tn + fp > 0), (tp / (tp + fn) + tn / (tn + fp)) / 2, np.nan)


def ratio(part: Array, whole: Array) -> Array:
    """A share, or a mean over tokens: a sum over a count."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
