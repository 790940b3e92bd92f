"""Each mean under drawn documents: what the interval of SAEs with one seed is over, beside their features.

A draw takes as many test documents as there are, with replacement, so it is a count per document. All SAEs have the same
draws. With the sums of each document and latent, and a score that is a function of them (measures.py):

    score_i(draw)         measure(sum over documents of count * sums_i)
    uniform(draw)         sum w_i score_i / sum w_i
    by_frequency(draw)    sum w_i fires_i score_i / sum w_i fires_i, with the fires of the draw

Row 0 counts each document once: it is the measurement. What was chosen on the fit documents (rules, labels, thresholds)
stays as it is.

replicates.safetensors: `<path>|<control>|<score>|<uniform or by_frequency>` [1 + draws], and `<path>|<score>|documents`, the
number of tokens of each test document that the score is measured on. The metadata have `texts`, the digest of the text by path:
SAEs of one text have the same documents, though the tokens that count differ where other tokens are sinks.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy import ndarray as Array
from safetensors import safe_open
from safetensors.numpy import save_file

from saesweep.report.intervals import MIN_DOCUMENTS, Variance, effective_sample_size
from saesweep.runtime import atomic

DEFINED = 0.95  # the least share of draws with a value
TEXTS = "texts"  # the entry of the metadata


class Means(NamedTuple):
    """Row 0 of each: the measurement."""

    uniform: Float64[Array, " rows"]
    by_frequency: Float64[Array, " rows"] | None  # None of a score of the whole SAE


@dataclass
class Replicates:
    """The content of replicates.safetensors."""

    means: dict[tuple[str, str, str, str], Array] = field(default_factory=dict)  # path, control or "", score, mean -> [rows]
    documents: dict[tuple[str, str], Array] = field(default_factory=dict)  # path, score -> tokens of each test document
    texts: dict[str, str] = field(default_factory=dict)  # path -> digest of its text; empty: unknown

    def add(self, path: str, control: str | None, score: str, found: Means, documents: Float[Array, " documents"]) -> None:
        """documents: tokens of each test document that the score is measured on."""
        self.documents[path, score] = documents
        self.means[path, control or "", score, "uniform"] = found.uniform
        if found.by_frequency is not None:
            self.means[path, control or "", score, "by_frequency"] = found.by_frequency

    def of(self, path: str, score: str) -> Array:
        """The tokens of each test document that the score is measured on; empty where unknown."""
        return self.documents.get((path, score), np.empty(0))

    def text(self, path: str) -> str:
        """The digest of its text; empty where it is unknown."""
        return self.texts.get(path, "")


def draw(documents: int, draws: int, seed: int) -> Int64[Array, "rows documents"]:
    """How often each document is in each draw; row 0 has each once."""
    drawn = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=draws)
    return np.concatenate([np.ones((1, documents), np.int64), drawn])


def of_sums(
    measure: Callable[..., Array],
    sums: Mapping[str, Float[Array, "latents documents"]],
    counts: Int64[Array, "rows documents"],
    weights: Float[Array, " latents"] | None = None,
    fires: Float[Array, "latents documents"] | None = None,
) -> Means:
    """The means of one score of one SAE. sums: by the names of the measure's arguments. counts: of `draw`.

    weights: 1 / probability of sampling the latent; None: 1. fires: on how many tokens it fires; None where the rows are
    not latents.
    """
    scores = measure(**{name: one @ counts.T for name, one in sums.items()})
    w = np.ones(len(scores)) if weights is None else weights
    uniform = _mean(scores, np.broadcast_to(w[:, None], scores.shape))
    return Means(uniform, None if fires is None else _mean(scores, w[:, None] * (fires @ counts.T)))


def _mean(scores: Float[Array, "latents rows"], weights: Float[Array, "latents rows"]) -> Float64[Array, " rows"]:
    """Of the scores that are defined."""
    known = np.isfinite(scores) & np.isfinite(scores[:, :1])
    total = np.where(known, weights, 0).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, weights * scores, 0).sum(0) / total


def draws_variance(draws: Float[Array, " draws"], documents: Float[Array, " documents"]) -> Variance | None:
    """Over documents, of a number that is known under each draw; None where there are too few documents.

    The variance of the draws is that of a sum over n documents about their own mean: n - 1 degrees of freedom. A few draws
    in which the number is not defined are left out.
    """
    counted, defined = documents[documents > 0], np.isfinite(draws)
    if len(counted) < MIN_DOCUMENTS or len(draws) < 2 or defined.mean() < DEFINED:
        return None
    n = len(counted)
    return Variance(float(draws[defined].var(ddof=1)) * n / (n - 1), max(1.0, effective_sample_size(counted) - 1))


def save(file: Path, found: Replicates) -> None:
    tensors = {"|".join(key): np.ascontiguousarray(rows, np.float32) for key, rows in found.means.items()}
    tensors |= {f"{path}|{score}|documents": np.ascontiguousarray(tokens, np.float32)
                for (path, score), tokens in found.documents.items()}
    with atomic.draft(file) as path:
        save_file(tensors, path, {TEXTS: json.dumps(found.texts)})  # safetensors writes several entries in any order
        atomic.share(path)


def load(file: Path) -> Replicates:
    """Empty where there is no such file."""
    found = Replicates()
    if not file.is_file():
        return found
    with safe_open(file, "np") as content:
        found.texts |= json.loads((content.metadata() or {}).get(TEXTS, "{}"))
        for key in content.keys():  # noqa: SIM118 it cannot be iterated
            values = content.get_tensor(key).astype(np.float64)
            if key.endswith("|documents"):
                path, _, score = key.removesuffix("|documents").rpartition("|")
                found.documents[path, score] = values
            else:
                path, control, score, mean = key.rsplit("|", 3)
                found.means[path, control, score, mean] = values
    return found
