"""Correlation and mutual information from counts and sums.

    pearson       r = (n sum ap - sum a sum p) / sqrt((n sum a^2 - (sum a)^2)(n sum p^2 - (sum p)^2))
    information   I(F; C) of two events in nats, from n trials, of which F happens in `fires`, C in `holds`, both in `both`
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

Numbers = np.ndarray | float


class Sums(NamedTuple):
    """Of a latent's values over `n` tokens."""

    n: float
    a: float
    squares: float


def sums(n: int, values: np.ndarray) -> Sums:
    """values: of the tokens on which the latent is active."""
    values = values.astype(np.float64)
    return Sums(n, float(values.sum()), float(np.square(values).sum()))


def pearson(of: Sums, p: Numbers, squares: Numbers, products: Numbers) -> np.ndarray:
    """r of a latent's values with predictions p, from sum p, sum p^2 and sum a p; 0 where one of them is constant."""
    covariance = of.n * np.asarray(products, np.float64) - of.a * np.asarray(p, np.float64)
    of_p = np.maximum(of.n * np.asarray(squares, np.float64) - np.square(np.asarray(p, np.float64)), 0)
    of_a = max(of.n * of.squares - of.a**2, 0)
    constant = np.asarray(of_p <= 1e-12 * of.n * np.asarray(squares)) | (of_a <= 1e-12 * of.n * of.squares)
    return np.where(constant, 0.0, covariance / np.sqrt(np.where(constant, 1.0, of_p * of_a)))


def entropy(share: Numbers) -> np.ndarray:
    """Of an event of this probability, in nats."""
    return np.asarray(_plogp(share) + _plogp(1 - np.asarray(share, np.float64)))


def information(n: Numbers, fires: Numbers, holds: Numbers, both: Numbers) -> np.ndarray:
    n, fires, holds, both = (np.asarray(number, np.float64) for number in (n, fires, holds, both))
    joint = _plogp(both / n) + _plogp((fires - both) / n) + _plogp((holds - both) / n) + _plogp((n - fires - holds + both) / n)
    return np.asarray(np.maximum(entropy(fires / n) + entropy(holds / n) - joint, 0))


def _plogp(share: Numbers) -> np.ndarray:
    share = np.maximum(np.asarray(share, np.float64), 0)
    return np.asarray(-share * np.log(np.where(share > 0, share, 1.0)))
