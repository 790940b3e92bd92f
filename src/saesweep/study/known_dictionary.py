"""How well the latents agree with the features of a known dictionary (`model=synthetic`), in both directions.

Of every true feature and latent: F1 of firing, and r of their values. Partners are chosen on fit and measured on test.

    known_f1                     each feature with a latent of its own (linear_sum_assignment on F1): mean F1; 0 without one
    known_precision              each latent with the feature of largest F1: share of its activations with that feature
    known_r_features             each feature with the latent of largest r: mean r
    known_r_latents              each latent with the feature of largest r: mean r
    known_r_latents_by_frequency    the same, weighted by how often the latent fires on test

Latents that are silent on fit, and features that are, are left out of what is a mean over them.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from saesweep.study.comparison import measures
from saesweep.study.hits import HALVES, Collected, HalfName, Hits
from saesweep.study.labels import HalfLabels, Labels
from saesweep.study.scores.of_sae import Extra, Grounds
from saesweep.study.scores.probes import Probed

Truth = Mapping[HalfName, Float[np.ndarray, "_ features"]]


class Agreement(NamedTuple):
    """Of latents (rows) and features (columns)."""

    f1: Float[np.ndarray, "d_sae features"]
    precision: Float[np.ndarray, "d_sae features"]
    r: Float[np.ndarray, "d_sae features"]
    fires: Float[np.ndarray, " d_sae"]
    active: Float[np.ndarray, " features"]


def agreement(truth: Float[np.ndarray, "tokens features"], hits: Hits) -> Agreement:
    """truth: the features' values. hits: of all latents on the same tokens."""
    n, truth = len(truth), truth.astype(np.float64)
    shape = (len(hits.latents), n)
    a = csr_array((hits.values.astype(np.float64), hits.positions, hits.starts), shape=shape)
    fires = csr_array((np.ones(len(hits.values)), hits.positions, hits.starts), shape=shape)
    counts, active = np.diff(hits.starts).astype(np.float64), (truth > 0).sum(0).astype(np.float64)
    tp = fires @ (truth > 0).astype(np.float64)
    own, squares = (np.asarray(one.sum(1))[:, None] for one in (a, a.multiply(a)))
    r = measures.pearson(np.array(float(n)), own, truth.sum(0), squares, np.square(truth).sum(0), a @ truth)
    f1 = 2 * tp / np.maximum(counts[:, None] + active, 1)
    return Agreement(f1, tp / np.maximum(counts, 1)[:, None], np.nan_to_num(r), counts, active)


def recovery(fit: Agreement, test: Agreement) -> dict[str, float]:
    latents, features = np.flatnonzero(fit.fires), np.flatnonzero(fit.active)
    if not len(latents) or not len(features):
        return {}
    f1, r = fit.f1[np.ix_(latents, features)], fit.r[np.ix_(latents, features)]
    rows, columns = linear_sum_assignment(-f1)
    matched = test.f1[latents[rows], features[columns]].sum() / len(features)
    precision = test.precision[latents, features[f1.argmax(1)]]
    by_feature = test.r[latents[r.argmax(0)], features]
    by_latent, often = test.r[latents, features[r.argmax(1)]], test.fires[latents]
    return {
        "known_f1": float(matched), "known_precision": float(precision.mean()), "known_r_features": float(by_feature.mean()),
        "known_r_latents": float(by_latent.mean()),
        "known_r_latents_by_frequency": float((by_latent * often).sum() / max(often.sum(), 1)),
    }


def feature_labels(truth: Truth) -> Labels:
    """A label for each feature that is active on both halves: its tokens are those on which it is active."""
    both = np.flatnonzero(np.logical_and.reduce([(a > 0).any(0) for a in truth.values()]))
    halves = {name: HalfLabels(csr_array(a[:, both].T > 0), np.ones(len(a), bool)) for name, a in truth.items()}
    return Labels([f"feature {number}" for number in both], halves["fit"], halves["test"])


class KnownDictionary(Extra):
    """truth: of each half the features' values on its tokens."""

    def __init__(self, truth: Truth):
        self.truth = truth

    def of_sae(self, sae: Collected, grounds: Grounds, probed: Probed | None) -> Mapping[str, float]:
        fit, test = (agreement(self.truth[name][(half := sae.half(name)).dense], half.in_dense) for name in HALVES)
        return recovery(fit, test)
