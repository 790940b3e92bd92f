"""How a score depends on the frequency of a latent and on the L0 of the SAE; and what it is beside the controls.

    per_tenfold    slope of the score on log10 f within an SAE (weighted least squares), the mean over an architecture's SAEs
    frequent       mean of the eligible latents that fire on at least a tenth of the tokens, less that of the others
    per_doubling   slope of the mean score on log2 L0 through an architecture's SAEs
    over_control   mean score of the SAEs less that of their control
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy import ndarray as Array

from saesweep.report.intervals import combined, document_variance
from saesweep.study.comparison.contrasts import Contrast, Numbers, contrast
from saesweep.study.comparison.matched import summed
from saesweep.study.comparison.means import effective_count
from saesweep.study.comparison.measured import Measured, Sae, feature_mean

FREQUENT = 0.1  # "high-frequency" in Rajamanoharan et al. 2024 (arXiv:2407.14435)


def frequency_slope(score: Array, weight: Array, frequency: Array) -> Measured | None:
    """Of one SAE; None where its features have one frequency."""
    known = np.isfinite(score) & (weight > 0) & (frequency > 0)
    s, w, x = score[known], weight[known], np.log10(frequency[known])
    if len(s) < 3 or np.ptp(x) == 0:
        return None
    sums = np.array([w, w * x, w * s, w * x * x, w * x * s])
    rows = _slope(np.column_stack([sums.sum(1), sums.sum(1)[:, None] - sums]))
    return Measured(float(rows[0]), len(s), effective_count(s, w), document_variance(rows, w))


def _slope(sums: Array) -> Array:
    w, x, s, xx, xs = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return (w * xs - x * s) / (w * xx - x * x)


def frequent_gap(score: Array, weight: Array, frequency: Array) -> Measured | None:
    """Of one SAE; None where one of the two groups is empty."""
    often = frequency >= FREQUENT
    one, other = feature_mean(score[often], weight[often]), feature_mean(score[~often], weight[~often])
    if not one.features or not other.features:
        return None
    known = [v for v in (one.variance, other.variance) if v is not None]
    variance = combined(known) if len(known) == 2 else None
    return Measured(one.value - other.value, one.features + other.features, min(one.effective, other.effective), variance)


def mean_over_saes(saes: Sequence[Sae], numbers: Numbers) -> Contrast | None:
    """The mean of a number over an architecture's SAEs that have it, within each seed."""
    known = [one for one in saes if numbers[one.row] is not None]
    by_seed = [{one.row: 1 / len(own) for one in own} for own in _by_seed(known)]
    return contrast(by_seed, numbers) if by_seed else None


def l0_slope(saes: Sequence[Sae], numbers: Numbers) -> Contrast | None:
    """saes: those that have the number. None where no seed has SAEs of two different L0."""
    each = []
    for own in _by_seed(saes):
        x = np.log2([one.l0 for one in own])
        x = x - x.mean()
        if np.ptp(x) > math.log2(1.15):
            each.append(dict(zip((one.row for one in own), (x / np.square(x).sum()).tolist(), strict=True)))
    return contrast(each, numbers) if each else None


def over_control(
    saes: Sequence[Sae], beside: Sequence[Mapping[str, int]], numbers: Numbers, control: str
) -> Contrast | None:
    """The mean over an architecture's SAEs of each less its control, of those that have one. saes: those that have the
    number. beside: of Study."""
    known = [one for one in saes if control in beside[one.row] and numbers[beside[one.row][control]] is not None]
    by_seed = []
    for own in _by_seed(known):
        each = [{one.row: 1.0, beside[one.row][control]: -1.0} for one in own]
        by_seed.append(summed(each, [1 / len(each)] * len(each)))
    return contrast(by_seed, numbers) if by_seed else None


def _by_seed(saes: Sequence[Sae]) -> list[list[Sae]]:
    """Those of each seed; only of the targets that all seeds have, so that seeds are alike."""
    seeds = sorted({one.seed for one in saes})
    count = Counter(one.target for one in saes if not math.isnan(one.sparsity) or not math.isnan(one.coefficient))
    kept = [one for one in saes if count[one.target] == len(seeds)] or [one for one in saes if one.seed == seeds[0]]
    return [own for seed in seeds if (own := [one for one in kept if one.seed == seed])]
