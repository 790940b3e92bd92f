"""How well a look-up predicts a latent: by the token alone, or by one label. Chosen and filled on fit, measured on test.

    lookup_token    r of a(t) with (sum of a at this token on fit + 2 mean a) / (count on fit + 2)
    lookup_class    r of a(t) with the label whose r is largest on fit
    uncertainty     I(fires; label) / H(fires) of the label for which it is largest on fit
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from saesweep.study.scores.conditions import Activity, Ground
from saesweep.study.scores.moments import entropy, information, pearson

PRIOR = 2  # tokens with the mean value that are added to each token's


def lookup_token(fit: Ground, test: Ground, a_fit: Activity, a_test: Activity) -> float:
    """0 where the latent, or the prediction, is constant."""
    mean = a_fit.sums.a / max(fit.n, 1)
    kinds = fit.of.kind[a_fit.positions]
    found = np.bincount(kinds, a_fit.values, minlength=len(fit.of.ids))
    table = np.append((found + PRIOR * mean) / (fit.kinds + PRIOR), mean)  # the last: a token that is not in the fit half
    counts = np.append(test.kinds, test.n - test.kinds.sum())
    products = table[test.of.kind[a_test.positions]] @ a_test.values
    return float(pearson(a_test.sums, counts @ table, counts @ table**2, products))


class Chosen(NamedTuple):
    """A score on test and the name of the label that gave it."""

    value: float
    label: str | None


def lookup_class(fit: Ground, test: Ground, a_fit: Activity, a_test: Activity) -> Chosen:
    r, names = label_correlations(fit, a_fit), fit.of.names
    if not names:
        return Chosen(np.nan, None)
    best = int(r.argmax())
    return Chosen(float(label_correlations(test, a_test)[best]), names[best])


def label_correlations(ground: Ground, a: Activity) -> Float[np.ndarray, " labels"]:
    labels = slice(ground.of.labels)
    holds = ground.holds[labels]
    return pearson(a.sums, holds, holds, ground.of.add_up(a.positions, a.values)[labels])


def uncertainty(fit: Ground, test: Ground, a_fit: Activity, a_test: Activity) -> Chosen:
    shares, names = label_shares(fit, a_fit), fit.of.names
    if not names:
        return Chosen(np.nan, None)
    best = int(shares.argmax())
    return Chosen(float(label_shares(test, a_test)[best]), names[best])


def label_shares(ground: Ground, a: Activity) -> Float[np.ndarray, " labels"]:
    """I(fires; label) / H(fires) of each label."""
    labels, fires = slice(ground.of.labels), len(a.positions)
    total = float(entropy(fires / max(ground.n, 1)))
    both = ground.of.count(a.positions)[labels]
    return information(ground.n, fires, ground.holds[labels], both) / total if total else np.zeros(ground.of.labels)
