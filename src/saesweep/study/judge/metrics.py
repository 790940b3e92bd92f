"""Scores of predictions. One that is the same everywhere has an AUROC and a balanced accuracy of 1/2, and a correlation of 0.

    AUROC              share of pairs (positive, negative) in which the positive one is larger, ties counted as half
    balanced accuracy  mean of the shares of positives and of negatives that are told right
    Pearson, Spearman  correlation of the values, and of their ranks (ties: mean rank)
"""
from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import rankdata


def auroc(truth: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """nan without a positive or without a negative."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return math.nan
    ranks = rankdata(scores)[truth].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * negatives))


def balanced_accuracy(truth: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"]) -> float:
    """A probability above 1/2 says yes; exactly 1/2 is half of each. nan without a positive or without a negative."""
    if truth.all() or not truth.any():
        return math.nan
    said = (np.sign(probabilities - 0.5) + 1) / 2
    return float((said[truth].mean() + (1 - said[~truth]).mean()) / 2)


def pearson(truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]) -> float:
    """nan where the truth does not vary."""
    if len(truth) == 0 or np.ptp(truth) == 0:
        return math.nan
    if np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(truth, predicted)[0, 1])


def spearman(truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]) -> float:
    return pearson(rankdata(truth), rankdata(predicted))
