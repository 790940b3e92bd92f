"""How well a label can be read from few latents (SAEBench's sparse probing), and how many latents share it.

    probe_k    mean F1 on test, over labels, of a logistic regression on the k latents of largest |difference of class means|
    splits     mean number of latents, at most MOST, after which one more raises the F1 of the probe on fit by less than RISE

Latents, weights and thresholds are chosen on fit. All on the tokens on which the activations of every latent are kept.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array

from saesweep.study.scores.coverage import dense_labels
from saesweep.study.scores.ground import Ground
from saesweep.study.scores.logistic import Probe, best_threshold, newton

PROBED = (1, 2, 5)
MOST, RISE = 10, 0.03


class Dense(NamedTuple):
    """What is known of all latents on the tokens `dense` of a half, numbered within these."""

    values: csr_array  # [d_sae, tokens], on counted tokens only
    labels: csr_array  # bool [labels, tokens]
    counted: np.ndarray  # bool [tokens]


def dense(ground: Ground) -> Dense:
    hits, counted = ground.half.in_dense, ground.counted[ground.half.dense]
    kept = counted[hits.positions]
    starts = np.concatenate([[0], np.cumsum(kept)])[hits.starts]
    shape = len(hits.latents), len(counted)
    values = csr_array((hits.values[kept].astype(np.float64), hits.positions[kept], starts), shape=shape)
    return Dense(values, csr_array(dense_labels(ground).T), counted)


def rank(fit: Dense) -> Int64[np.ndarray, "labels most"]:
    """Of each label the latents that differ most between its tokens and the others."""
    of_label = np.asarray((fit.values @ fit.labels.T.astype(np.float64)).todense())
    positives, n = fit.labels.sum(1), int(fit.counted.sum())
    total = np.asarray(fit.values.sum(1))[:, None]
    difference = of_label / np.maximum(positives, 1) - (total - of_label) / np.maximum(n - positives, 1)
    most = min(MOST, len(difference))
    return np.argsort(-np.abs(difference), axis=0, kind="stable")[:most].T


class Columns:
    """Of one label the values of its ranked latents on fit; tokens on which all are silent are two rows, with weights."""

    def __init__(self, fit: Dense, latents: Int64[np.ndarray, " most"], label: int):
        rows = fit.values[latents]
        y = np.zeros(len(fit.counted), bool)
        y[_row(fit.labels, label)] = True
        silent = fit.counted.copy()
        silent[rows.indices] = False
        self.active = np.flatnonzero(fit.counted & ~silent)
        counts = np.array([(silent & ~y).sum(), (silent & y).sum()], np.float64)
        self.x = np.concatenate([np.asarray(rows[:, self.active].todense()).T, np.zeros((2, len(latents)))])
        self.y = np.concatenate([y[self.active], [False, True]])
        self.weight = np.concatenate([np.ones(len(self.active)), counts])

    def probe(self, k: int) -> tuple[Probe, float]:
        """On the first k latents, and its F1."""
        x = self.x[:, :k]
        weights = newton(x, self.y, self.weight)
        threshold, f1 = best_threshold(x @ weights, self.y, self.weight)
        return Probe(weights, threshold), f1


class Probed(NamedTuple):
    sums: dict[int, dict[str, Float[np.ndarray, "labels documents"]]]  # by k: tp, fp, fn on test
    split: list[list[int]]  # of each label the latents that it is split into


def probe(fit_ground: Ground, test_ground: Ground) -> Probed:
    fit, test = dense(fit_ground), dense(test_ground)
    rows, split = {k: [] for k in PROBED}, list[list[int]]()
    for label, latents in enumerate(rank(fit)):
        columns = Columns(fit, latents, label)
        probes = [columns.probe(k + 1) for k in range(min(max(PROBED), len(latents)))]
        for k in PROBED:
            found, _ = probes[min(k, len(probes)) - 1]
            rows[k].append(tested(test_ground, test, label, positives(test, latents, found)))
        split.append(latents[: _splits(columns, [f1 for _, f1 in probes], len(latents))].tolist())
    return Probed({k: test_ground.by_label(parts) for k, parts in rows.items()}, split)


def _splits(columns: Columns, f1: Sequence[float], most: int) -> int:
    f1 = list(f1)
    for k in range(1, most):
        if k == len(f1):
            f1.append(columns.probe(k + 1)[1])
        if f1[k] - f1[k - 1] < RISE:
            return k
    return most


def positives(test: Dense, latents: Int64[np.ndarray, " most"], found: Probe) -> Int64[np.ndarray, " n"]:
    """The counted tokens that a probe finds."""
    z = found.weights @ test.values[latents[: len(found.weights)]]
    return np.flatnonzero(test.counted & (z >= found.threshold))


def tested(ground: Ground, test: Dense, label: int, found: Int64[np.ndarray, " n"]) -> tuple[np.ndarray, ...]:
    """tp, fp and fn by document."""
    return ground.detected(ground.half.dense[found], ground.half.dense[_row(test.labels, label)])


def _row(matrix: csr_array, number: int) -> Int64[np.ndarray, " n"]:
    return matrix.indices[matrix.indptr[number] : matrix.indptr[number + 1]].astype(np.int64)
