"""The tokens of a latent's strongest activations: the share of the commonest one, and the entropy of all."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from saesweep.study.hits import Half


class Purity(NamedTuple):
    top_purity: float  # share of the commonest token
    single_token: bool  # it is all of them
    top_entropy: float  # in nats
    top_perplexity: float  # exp of it: the number of equally frequent tokens that would have this entropy


def purity(ids: Int64[np.ndarray, " top"]) -> Purity:
    p = np.unique(ids, return_counts=True)[1] / len(ids)
    entropy = float(-(p * np.log(p)).sum()) + 0.0
    return Purity(float(p.max()), bool(p.max() == 1), entropy, float(np.exp(entropy)))


def top_tokens(half: Half, latent: int) -> Int64[np.ndarray, " top"]:
    """The ids of the tokens of the strongest activations, strongest first."""
    positions = half.top.positions[latent]
    return half.text.tokens[positions[positions >= 0]].astype(np.int64)
