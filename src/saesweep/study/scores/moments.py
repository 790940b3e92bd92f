"""Correlation and mutual information from counts and sums, of many conditions at once.

    correlations  r = (n sum ac - sum a sum c) / sqrt((n sum a^2 - (sum a)^2) (n sum c - (sum c)^2)),  c in {0, 1}
    information   I(F; C) of two events in nats, from n trials, of which F happens in `fires`, C in `holds`, both in `both`
"""
from __future__ import annotations

import numpy as np

Numbers = np.ndarray | float


def correlations(n: int, total: float, squares: float, holds: np.ndarray, products: np.ndarray) -> np.ndarray:
    """r of a latent's values (sum and sum of squares over n tokens) with conditions; 0 where one of the two is constant."""
    of_a, of_c = max(n * squares - total**2, 0.0), holds * (n - holds)
    if not of_a:
        return np.zeros(len(holds))
    return np.where(of_c > 0, (n * products - total * holds) / np.sqrt(of_a * np.maximum(of_c, 1)), 0.0)


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


def uncertainty(n: Numbers, fires: Numbers, holds: Numbers, both: Numbers) -> np.ndarray:
    """I(fires; label) / H(fires), the share of the uncertainty of firing that the label takes away; NaN where it has none."""
    n = np.maximum(n, 1)
    whole = entropy(fires / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, information(n, fires, holds, both) / whole, np.nan)
