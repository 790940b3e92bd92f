"""Which latents are scored.

    eligible     active on at least `min_fires` tokens in at least `min_documents` documents of each half
    sample       the first n eligible latents in ascending key(seed, SAE, latent): the sample of a larger n begins with it
    strata       by frequency on test; each is topped up, in the same order, to TOP_UP latents, if it has as many
    weight       1 / pi = eligible latents of the stratum / those of them that are in the sample
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from saesweep.study.hits import HALVES, Collected

STRATA = (0.0, 1e-3, 1e-2, 0.1)  # lower ends of the frequencies
TOP_UP = (25, 25, 25, 100)


class Sample(NamedTuple):
    """The latents that are scored, in ascending order of their keys within each stratum."""

    latents: Int64[np.ndarray, " n"]
    stratum: Int64[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]


def eligible(collected: Collected, min_fires: int, min_documents: int) -> Bool[np.ndarray, " d_sae"]:
    halves = [collected.half(name) for name in HALVES]
    return np.logical_and.reduce([(half.fires >= min_fires) & (half.documents >= min_documents) for half in halves])


def strata(frequency: Float[np.ndarray, " d_sae"]) -> Int64[np.ndarray, " d_sae"]:
    """The number of each latent's stratum."""
    return np.searchsorted(STRATA, frequency, side="right") - 1


def sample(collected: Collected, allowed: Bool[np.ndarray, " d_sae"], n: int) -> Sample:
    """The first `n` of the allowed latents, and those that top the strata up, as far as their activations are kept."""
    order, stratum = collected.order, strata(collected.test.frequency)
    kept = np.isin(order, np.intersect1d(collected.fit.hits.latents, collected.test.hits.latents))
    candidates = order[allowed[order] & kept]
    first = np.zeros(len(allowed), bool)
    first[candidates[:n]] = True
    latents, weights = [], []
    for number, least in enumerate(TOP_UP):
        mine = candidates[stratum[candidates] == number]
        taken = mine[: max(int(first[mine].sum()), least)]
        latents.append(taken)
        weights.append(np.full(len(taken), (allowed & (stratum == number)).sum() / max(len(taken), 1)))
    chosen = np.concatenate(latents)
    return Sample(chosen, stratum[chosen], np.concatenate(weights))
