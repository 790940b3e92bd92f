"""What stands beside the scores of an explanation: the same questions with another latent's explanation, and with none.

A score counts by how far it is above these. They are asked for a share of the latents of each SAE: those of smallest key, a
uniform sample that depends on no order. `shuffled` is the explanation of the next latent in the order of the keys.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from saesweep.study.judge.windows import LatentExamples
from saesweep.study.keys import keys

CONDITIONS = ("shuffled", "none")
PURPOSE = 1  # the position in the key; 0 is that of the sample of latents


def by_key(latents: Sequence[LatentExamples], seed: int) -> list[LatentExamples]:
    """The latents of one SAE in an order drawn at random."""
    drawn = keys(seed, np.array([one.latent for one in latents], np.int64), np.array([PURPOSE]))
    return [latents[number] for number in np.argsort(drawn, kind="stable")]


def controlled(latents: Sequence[LatentExamples], share: float, seed: int) -> list[LatentExamples]:
    """Those of one SAE that are asked again."""
    return by_key(latents, seed)[: math.ceil(share * len(latents))]


def shuffled(latents: Sequence[LatentExamples], explanations: Mapping[int, str], seed: int) -> dict[int, str]:
    """For each latent the explanation of the next one that has another; a latent is left out where there is none."""
    order = [one.latent for one in by_key(latents, seed) if one.latent in explanations]
    found = {}
    for place, latent in enumerate(order):
        others = (explanations[other] for other in order[place + 1 :] + order[:place])
        other = next((text for text in others if text != explanations[latent]), None)
        if other is not None:
            found[latent] = other
    return found
