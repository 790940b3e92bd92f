"""Which latents are scored, and the means over them.

    eligible     active on at least `min_fires` tokens in at least `min_documents` documents of each half
    sample       the first n eligible latents in ascending key(seed, SAE, latent): the sample of a larger n begins with it
    strata       by frequency on test; each is topped up, in the same order, to TOP_UP latents, if it has as many
    weight       1 / pi = eligible latents of the stratum / those of them that are in the sample
    uniform      sum w s / sum w            frequency-weighted      sum w f s / sum w f
"""
from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from saesweep.study.hits import HALVES, Collected
from saesweep.study.keys import keys

STRATA = (0.0, 1e-3, 1e-2, 0.1)  # lower ends of the frequencies
TOP_UP = (25, 25, 25, 100)


class Sample(NamedTuple):
    """The latents that are scored, in ascending order of their keys within each stratum."""

    latents: Int64[np.ndarray, " n"]
    stratum: Int64[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]


def number_of(path: str, control: str | None) -> int:
    """The number by which the keys know an SAE: it depends on its path alone, not on which others are compared."""
    return int.from_bytes(hashlib.sha256(f"{path}|{control or ''}".encode()).digest()[:8], "big")


def order(seed: int, path: str, control: str | None, d_sae: int) -> Int64[np.ndarray, " d_sae"]:
    """All latents of an SAE in the order in which they are sampled."""
    sae = np.array([number_of(path, control)], np.uint64)
    return np.argsort(keys(seed, sae, np.arange(d_sae)), kind="stable")


def eligible(collected: Collected, min_fires: int, min_documents: int) -> Bool[np.ndarray, " d_sae"]:
    halves = [collected.half(name) for name in HALVES]
    return np.logical_and.reduce([(half.fires >= min_fires) & (half.documents >= min_documents) for half in halves])


def strata(frequency: Float[np.ndarray, " d_sae"]) -> Int64[np.ndarray, " d_sae"]:
    """The number of each latent's stratum."""
    return np.searchsorted(STRATA, frequency, side="right") - 1


def sample(
    ordered: Int64[np.ndarray, " d_sae"], allowed: Bool[np.ndarray, " d_sae"], frequency: Float[np.ndarray, " d_sae"], n: int,
) -> Sample:
    """`n` of the allowed latents, the first in `ordered`, and those that top the strata up."""
    candidates, stratum = ordered[allowed[ordered]], strata(frequency)
    first = np.zeros(len(allowed), bool)
    first[candidates[:n]] = True
    latents, weights = [], []
    for number, least in enumerate(TOP_UP):
        mine = candidates[stratum[candidates] == number]
        taken = mine[: max(int(first[mine].sum()), least)]
        latents.append(taken)
        weights.append(np.full(len(taken), len(mine) / max(len(taken), 1)))
    chosen = np.concatenate(latents)
    return Sample(chosen, stratum[chosen], np.concatenate(weights))


class Mean(NamedTuple):
    """A weighted mean with its 95% interval, a normal approximation over latents: of the sampling of latents alone."""

    value: float
    low: float
    high: float


def weighted_mean(scores: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> Mean:
    """Over the latents that have a score (not NaN). variance = sum w^2 (s - mean)^2 / (sum w)^2 * n / (n - 1)"""
    known = ~np.isnan(scores)
    s, w = scores[known], weights[known]
    if not w.sum() > 0:
        return Mean(math.nan, math.nan, math.nan)
    mean = float((w * s).sum() / w.sum())
    if len(s) < 2:
        return Mean(mean, math.nan, math.nan)
    half = 1.96 * float(np.sqrt((w**2 * (s - mean) ** 2).sum() * len(s) / (len(s) - 1)) / w.sum())
    return Mean(mean, mean - half, mean + half)
