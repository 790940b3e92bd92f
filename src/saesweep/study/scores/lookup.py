"""How well a look-up predicts a latent: by the token alone, or by one label. Chosen and filled on fit, measured on test.

    lookup_token    r of a(t) with (sum of a at this token on fit + 2 mean a) / (count on fit + 2)
    lookup_class    r of a(t) with the label whose r is largest on fit
    uncertainty     I(fires; label) / H(fires) of the label for which it is largest on fit
"""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from saesweep.study.scores.ground import Activity, Documents, Ground
from saesweep.study.scores.moments import correlations, uncertainty

PRIOR = 2  # tokens with the mean value that are added to each token's

Sums = Mapping[str, Documents]  # by the names of the arguments of a score's formula (comparison/measures.py)


def prediction(test: Ground, a: Activity, y: Documents, yy: Documents, at_fires: Float[np.ndarray, " fires"]) -> Sums:
    """The sums of `pearson`. y, yy: sums of the predicted values and of their squares; at_fires: those where a fires."""
    return {
        "n": test.tokens, "a": test.by_document(a.positions, a.values), "aa": test.by_document(a.positions, a.values**2),
        "y": y, "yy": yy, "ay": test.by_document(a.positions, a.values * at_fires),
    }


def table(fit: Ground, a: Activity) -> Float[np.ndarray, " ids_and_other"]:
    """The predicted value of each token id; the last is that of a token which is not in the fit half."""
    mean = a.total / max(fit.n, 1)
    found = np.bincount(fit.of.kind[a.positions], a.values, minlength=len(fit.of.ids))
    counts = np.asarray(fit.kinds.sum(0))[:-1]
    return np.append((found + PRIOR * mean) / (counts + PRIOR), mean)


def lookup_token(fit: Ground, test: Ground, a_fit: Activity, a_test: Activity) -> Sums:
    values = table(fit, a_fit)
    return prediction(test, a_test, test.kinds @ values, test.kinds @ values**2, values[test.of.kind[a_test.positions]])


def best_class(fit: Ground, a: Activity) -> int:
    """The label of largest r on fit."""
    labels = slice(fit.of.labels)
    products = fit.of.add_up(a.positions, a.values)[labels]
    return int(correlations(a.n, a.total, a.squares, fit.holds[labels], products).argmax())


def lookup_class(label: int, test: Ground, a: Activity) -> Sums:
    holds = test.holding(label)
    return prediction(test, a, holds, holds, np.isin(a.positions, test.of.holding(label)).astype(np.float64))


def best_informed(fit: Ground, a: Activity) -> int:
    """The label that takes away most of the uncertainty of firing on fit."""
    labels, fires = slice(fit.of.labels), float(len(a.positions))
    shares = uncertainty(float(fit.n), fires, fit.holds[labels], fit.of.count(a.positions)[labels])
    return int(np.nan_to_num(shares).argmax())


def lookup_uncertainty(label: int, test: Ground, a: Activity) -> Sums:
    """The sums of `uncertainty`."""
    both = a.positions[np.isin(a.positions, test.of.holding(label))]
    return {"n": test.tokens, "fires": test.by_document(a.positions), "holds": test.holding(label),
            "both": test.by_document(both)}
