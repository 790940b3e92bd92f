"""All scores of one latent that need neither a language model nor embeddings."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.comparison import measures
from saesweep.study.labels import name_of
from saesweep.study.scores import lookup, moments, rule
from saesweep.study.scores.ground import Ground
from saesweep.study.scores.lookup import Sums

DECILES = 10


def _recall(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """How often the latent fires where the rule holds."""
    return measures.ratio(tp, tp + fp)


def _f1(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Of firing, where a leaf of the rule holds."""
    return measures.f1(tp, fp, fn)


# Scores that are functions of sums over tokens: which sums, and the function.
MEASURES: dict[str, tuple[str, Callable[..., np.ndarray]]] = {
    "rule": ("rule", measures.pearson), "rule_accuracy": ("firing", measures.balanced_accuracy),
    "rule_recall": ("firing", _recall), "rule_f1": ("firing", _f1), "lookup_token": ("lookup_token", measures.pearson),
    "lookup_class": ("lookup_class", measures.pearson), "uncertainty": ("uncertainty", moments.uncertainty),
}


class LatentScores(NamedTuple):
    sums: dict[str, Sums]  # by document, of MEASURES
    numbers: dict[str, float]  # the other scores
    words: dict[str, str]


class Purity(NamedTuple):
    """Of the tokens of a latent's strongest activations."""

    top_purity: float  # share of the commonest token
    single_token: bool  # it is all of them
    top_entropy: float  # in nats
    top_perplexity: float  # exp of it: the number of equally frequent tokens that would have this entropy


def score(fit: Ground, test: Ground, latent: int, tokenizer: Tokenizer) -> LatentScores:
    """Everything is chosen on fit and measured on test."""
    a_fit, a_test = fit.activity(latent), test.activity(latent)
    grown = rule.grow(fit, a_fit)
    leaf = rule.leaf_of(grown, test.of)
    sums: dict[str, Sums] = {"lookup_token": lookup.lookup_token(fit, test, a_fit, a_test)}
    sums["rule"], sums["firing"] = rule.measure(grown, leaf, test, a_test)
    strongest = test.half.top.positions[latent]
    top = test.half.text.tokens[strongest[strongest >= 0]].astype(np.int64)
    numbers = {key: float(value) for key, value in purity(top)._asdict().items()}
    numbers["score_gap"] = gap(test, latent, (leaf < len(grown.leaves)).astype(np.float64))
    words = {"rule_words": rule.words(grown, fit.of, tokenizer), "top_token": name_of(tokenizer, _commonest(top))}
    if fit.of.labels:
        best, informed = lookup.best_class(fit, a_fit), lookup.best_informed(fit, a_fit)
        sums["lookup_class"] = lookup.lookup_class(best, test, a_test)
        sums["uncertainty"] = lookup.lookup_uncertainty(informed, test, a_test)
        words |= {"lookup_label": fit.of.names[best], "uncertainty_label": fit.of.names[informed]}
    return LatentScores(sums, numbers, words)


def purity(ids: Int64[np.ndarray, " top"]) -> Purity:
    """ids: the tokens of the strongest activations."""
    p = np.unique(ids, return_counts=True)[1] / len(ids)
    entropy = float(-(p * np.log(p)).sum()) + 0.0
    return Purity(float(p.max()), bool(p.max() == 1), entropy, float(np.exp(entropy)))


def gap(test: Ground, latent: int, example: np.ndarray) -> float:
    """The mean score of the examples of the highest decile of the uniform sample less that of the lowest (TM).

    example: the score of each token as an example, [tokens]. NaN where there are fewer than a sample of ten.
    """
    values, positions = test.half.sample.values[latent], test.half.sample.positions[latent]
    ranked = positions[positions >= 0][np.argsort(values[positions >= 0], kind="stable")]
    tenth = len(ranked) // DECILES
    return float(example[ranked[-tenth:]].mean() - example[ranked[:tenth]].mean()) if tenth else np.nan


def _commonest(ids: np.ndarray) -> int:
    found, counts = np.unique(ids, return_counts=True)
    return int(found[counts.argmax()])
