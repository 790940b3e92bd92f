"""How well single latents find labels (2408.00113, InterPLM 2412.12101).

    per label   the latent and the threshold, of 0, .1 .. .9 of the latent's maximum, of largest F1 on fit
    coverage    the mean over labels of the F1 of these on test
    coverage_precise    the share of labels whose precision on test is at least PRECISE

Of every latent, on the tokens of each half on which all activations are kept (`dense`).
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array

from saesweep.study.comparison import measures
from saesweep.study.hits import Hits
from saesweep.study.scores.ground import Ground

LEVELS = 10
PRECISE = 0.95
CELLS = 20_000_000  # latents x levels x labels that are counted at a time


class Detectors(NamedTuple):
    """For each label the latent that finds it best on fit."""

    latent: Int64[np.ndarray, " labels"]
    level: Int64[np.ndarray, " labels"]  # active above level / 10 of the maximum
    f1: Float[np.ndarray, " labels"]  # on fit


def maxima(fit: Ground) -> Float[np.ndarray, " d_sae"]:
    """Of each latent on fit; 1 where it never fires."""
    largest = fit.half.top.values[:, 0].astype(np.float64)
    return np.where(largest > 0, largest, 1.0)


def dense_labels(ground: Ground) -> csr_array:
    """bool [dense tokens, labels]: of the counted tokens."""
    rows = ground.of.by_token[ground.half.dense, : ground.of.labels].tocoo()
    kept = ground.counted[ground.half.dense][rows.row]
    return csr_array((np.ones(kept.sum(), bool), (rows.row[kept], rows.col[kept])), shape=rows.shape)


def choose(fit: Ground) -> Detectors:
    labels, hits, largest = dense_labels(fit), fit.half.in_dense, maxima(fit)
    positives, count = labels.sum(0), fit.of.labels
    best = Detectors(np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, -1.0))
    step = max(1, CELLS // (LEVELS * max(count, 1)))
    for first in range(0, len(hits.latents), step):
        latents = hits.latents[first : first + step]
        tp, active = _count(fit, labels, hits, first, len(latents), largest[latents])
        f1 = (2 * tp / np.maximum(active[:, :, None] + positives, 1)).reshape(-1, count)
        top = f1.argmax(0)
        value = f1[top, np.arange(count)]
        better = value > best.f1
        best = Detectors(*(np.where(better, new, old) for new, old in zip(
            (latents[top // LEVELS], top % LEVELS, value), best, strict=True)))
    return best


def _count(
    fit: Ground, labels: csr_array, hits: Hits, first: int, count: int, largest: Float[np.ndarray, " count"]
) -> tuple[Int64[np.ndarray, "count levels labels"], Int64[np.ndarray, "count levels"]]:
    """On how many tokens each latent is active above each level, with each label and in all."""
    mine = slice(hits.starts[first], hits.starts[first + count])
    row = np.repeat(np.arange(count), np.diff(hits.starts[first : first + count + 1]))
    positions, values = hits.positions[mine], hits.values[mine].astype(np.float64)
    kept = fit.counted[fit.half.dense][positions]
    row, positions, values = row[kept], positions[kept], values[kept]
    cell = row * LEVELS + np.clip(np.ceil(LEVELS * values / largest[row]) - 1, 0, LEVELS - 1).astype(np.int64)
    found = labels[positions]
    shape = (count, LEVELS, fit.of.labels)
    pairs = np.repeat(cell, np.diff(found.indptr)) * fit.of.labels + found.indices
    tp = np.bincount(pairs, minlength=count * LEVELS * fit.of.labels).reshape(shape)
    active = np.bincount(cell, minlength=count * LEVELS).reshape(shape[:2])
    return tp[:, ::-1].cumsum(1)[:, ::-1], active[:, ::-1].cumsum(1)[:, ::-1]


def measure(chosen: Detectors, fit: Ground, test: Ground) -> dict[str, Float[np.ndarray, "labels documents"]]:
    """tp, fp and fn of each label's latent on test."""
    labels, largest, hits = dense_labels(test).T.tocsr(), maxima(fit), test.half.dense_hits
    rows = []
    for label, (latent, level) in enumerate(zip(chosen.latent.tolist(), chosen.level.tolist(), strict=True)):
        positions, values = hits.of(latent)
        found = positions[(values > level / LEVELS * largest[latent]) & test.counted[positions]]
        true = test.half.dense[labels.indices[labels.indptr[label] : labels.indptr[label + 1]]]
        rows.append(test.detected(found, true))
    return test.by_label(rows)


def precise(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """1 where the precision is at least PRECISE, else 0; NaN where the label does not occur."""
    found = np.nan_to_num(measures.ratio(tp, tp + fp)) >= PRECISE
    return np.where(tp + fn > 0, found.astype(np.float64), np.nan)
