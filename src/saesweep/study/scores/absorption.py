"""Scores that need the activations x themselves, on the tokens on which every latent is kept.

    probe_x       mean F1 on test of a logistic regression on x: the ceiling of probe_k
    absorption    mean share, over labels, of the true positives of that probe on which all latents that the label is split
                  into (probes.py) are silent, and one other latent takes their place: its decoder row has a cosine of at least
                  LEAST with the probe, and it carries at least CARRIED of the projection of x onto it

As SAEBench's absorption calculator. x is in training units (centred, scaled), as are the values of the latents. Labels with
fewer than POSITIVES true positives are left out.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from saesweep.study.comparison import measures
from saesweep.study.hits import Collected, HalfName
from saesweep.study.scores.logistic import best_threshold, lbfgs
from saesweep.study.scores.of_sae import Extra, Grounds, Summed
from saesweep.study.scores.probes import Dense, Probed, dense, tested

LEAST, CARRIED, POSITIVES = 0.025, 0.4, 10

Rows = Callable[[Collected, HalfName], Float[np.ndarray, "tokens d_in"]]  # on the positions `dense` of a half
Decoder = Callable[[Collected], Float[np.ndarray, "d_sae d_in"] | None]  # unit rows; None of a control that has none


class DenseProbes(NamedTuple):
    """Of each label."""

    weights: Float[np.ndarray, "d_in labels"]
    found: list[Int64[np.ndarray, " n"]]  # the tokens of test that it finds
    right: list[Int64[np.ndarray, " n"]]  # those of them that have the label


def dense_probes(
    x_fit: Float[np.ndarray, "fit d_in"], x_test: Float[np.ndarray, "test d_in"], fit: Dense, test: Dense
) -> DenseProbes:
    """Fitted on the counted tokens of fit, with the threshold of largest F1 there."""
    y_fit, y_test = (np.asarray(one.labels.todense()).T for one in (fit, test))
    weights = lbfgs(x_fit[fit.counted], y_fit[fit.counted])
    z_fit, z_test = x_fit[fit.counted] @ weights, x_test @ weights
    found = DenseProbes(weights, [], [])
    for label in range(y_fit.shape[1]):
        threshold, _ = best_threshold(z_fit[:, label], y_fit[fit.counted, label], np.ones(len(z_fit)))
        positive = test.counted & (z_test[:, label] >= threshold)
        found.found.append(np.flatnonzero(positive))
        found.right.append(np.flatnonzero(positive & y_test[:, label]))
    return found


def absorbed(
    x: Float[np.ndarray, "tokens d_in"], test: Dense, probes: DenseProbes, split: list[list[int]],
    decoder: Float[np.ndarray, "d_sae d_in"],
) -> list[Int64[np.ndarray, " n"]]:
    """The true positives of each label in which another latent takes the place of its own."""
    by_token, found = test.values.T.tocsr(), []
    for label, right in enumerate(probes.right):
        direction = probes.weights[:, label] / np.linalg.norm(probes.weights[:, label])
        along = decoder @ direction
        other = along >= LEAST * np.linalg.norm(decoder, axis=1)
        other[split[label]] = False
        silent = np.asarray(test.values[split[label]][:, right].sum(0)) == 0
        carried = by_token[right[silent]].multiply(np.where(other, along, 0.0)[None]).max(1).toarray().ravel()
        whole = x[right[silent]] @ direction
        found.append(right[silent][(whole > 0) & (carried >= CARRIED * whole)])
    return found


class RowScores(Extra):
    """The probes are fitted once for the SAEs that `rows` gives the same arrays."""

    def __init__(self, rows: Rows, decoder: Decoder):
        self.rows, self.decoder = rows, decoder
        self.kept: tuple[np.ndarray, DenseProbes] | None = None  # of the rows that were asked for last

    def of_sae(self, sae: Collected, grounds: Grounds, probed: Probed | None) -> Mapping[str, Summed]:
        if probed is None:
            return {}
        x_fit, x_test, ground, test = self.rows(sae, "fit"), self.rows(sae, "test"), grounds[1], dense(grounds[1])
        if self.kept is None or self.kept[0] is not x_fit:
            self.kept = x_fit, dense_probes(x_fit, x_test, dense(grounds[0]), test)
        probes, decoder = self.kept[1], self.decoder(sae)
        counts = [tested(ground, test, label, positive) for label, positive in enumerate(probes.found)]
        scores = {"probe_x": Summed(measures.f1, ground.by_label(counts))}
        if decoder is not None:
            each = zip(absorbed(x_test, test, probes, probed.split, decoder), probes.right, strict=True)
            parts = [[ground.by_document(ground.half.dense[one]) for one in both] for both in each if len(both[1]) >= POSITIVES]
            scores["absorption"] = Summed(measures.ratio, ground.by_label(parts, ("part", "whole")))
        return scores
