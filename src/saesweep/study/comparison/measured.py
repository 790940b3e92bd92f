"""What is known of each SAE: its numbers with their variance over features and their value under each draw of documents."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array

from saesweep.report.intervals import Variance
from saesweep.storage import study_tables
from saesweep.storage.sweep_table import targets
from saesweep.study.comparison import means
from saesweep.study.comparison.baselines import beside
from saesweep.study.comparison.missing import asked
from saesweep.study.comparison.replicates import Replicates

Key = tuple[str, str]  # name of the score, and of the mean
SINGLE = "single_token"  # the score that says whether a latent is of one token


class Measured(NamedTuple):
    """One number of one SAE or control."""

    value: float
    features: int = 0  # that it is a mean over; 0: it is of the whole SAE
    effective: float = math.inf  # number of features of equal weight that say as much
    variance: Variance | None = None  # over features; None of too few
    draws: Array = np.empty(0)  # the number under each draw of documents; empty where unknown
    documents: Array = np.empty(0)  # tokens of each document that it is measured on
    text: str = ""  # digest of the text

    def scaled(self, factor: float) -> Measured:
        variance = self.variance and Variance(self.variance.value * factor**2, self.variance.df)
        return self._replace(value=self.value * factor, variance=variance, draws=self.draws * factor)


def feature_mean(score: Array, weight: Array) -> Measured:
    """The mean over features."""
    count = int((np.isfinite(score) & (weight > 0)).sum())
    return Measured(means.mean(score, weight), count, means.effective_count(score, weight), means.mean_variance(score, weight))


class Sae(NamedTuple):
    """A trained SAE of a study."""

    row: int  # of Study.saes
    arch: str
    seed: int
    target: str  # as in sweep_table.targets
    sparsity: float  # NaN where the coefficient is fixed
    coefficient: float
    l0: float

    @staticmethod
    def each(saes: pd.DataFrame) -> list[Sae]:
        """saes: rows of Study.saes."""
        numbers = saes[["sparsity", "coefficient", "l0"]].to_numpy(float).tolist()
        names = zip(saes.index.tolist(), saes["arch"], saes["seed"].astype(int), targets(saes), strict=True)
        return [Sae(*name, *number) for name, number in zip(names, numbers, strict=True)]


@dataclass(frozen=True)
class Study:
    """The SAEs of a study, trained ones and controls; lists have an item per row of `saes`."""

    saes: pd.DataFrame  # columns of sweep_table.table, and `control`: None of a trained SAE
    features: list[pd.DataFrame]  # their eligible features, rows of scores.csv
    scores: list[str]  # names of the scores of features
    numbers: dict[Key, list[Measured | None]]  # None where an SAE does not have the score
    texts: list[int]  # index of the text, by its digest; -1: unknown
    beside: list[dict[str, int]]  # rows of the controls, by name
    _columns: dict[tuple[int, str], tuple[Array, Array, Array]] = field(default_factory=dict)

    def per_feature(self, number: Callable[[Array, Array, Array], Measured | None], score: str) -> list[Measured | None]:
        """A number of (score, weight, frequency) of the features of each SAE."""
        return [number(*self.columns(i, score)) if len(rows) else None for i, rows in enumerate(self.features)]

    def columns(self, i: int, score: str) -> tuple[Array, Array, Array]:
        """Score, weight and frequency of the features of an SAE.

        Where a score was asked only of the first features in the sampling order, these are a uniform sample.
        """
        if (i, score) not in self._columns:
            score_, weight, frequency = (self.features[i][key].to_numpy(float) for key in (score, "weight", "frequency"))
            sampled = weight if asked(self.features[i], score).all() else np.ones_like(weight)
            self._columns[i, score] = score_, sampled, frequency
        return self._columns[i, score]


def study(table: pd.DataFrame, scores: pd.DataFrame, summary: pd.DataFrame, replicates: Replicates) -> Study:
    """table: of sweep_table. scores, summary: as study_tables.read returns them; of `summary` the scores of whole SAEs and
    the shares of latents are used."""
    scores = scores.loc[scores["eligible"].astype(bool)]
    saes = _saes(table, scores, summary)
    keys = study_tables.sae_keys(saes)
    by_sae = {key: rows for key, rows in scores.groupby(["path", scores["control"].astype(object).fillna("")], sort=False)}
    features = [by_sae.get(key, scores.iloc[:0]) for key in keys]
    names = [name for name in study_tables.score_names(scores) if pd.api.types.is_numeric_dtype(scores[name])]
    texts = _texts([replicates.text(path) for path in saes["path"]])
    found = Study(saes, features, names, {}, texts, beside(saes, texts))
    rows = summary.dropna(subset=["eligible"])
    share = dict(zip(study_tables.sae_keys(rows), rows["eligible"], strict=True))
    for name in names:
        found.numbers.update(_of_features(found, name, replicates, [share.get(key, math.nan) for key in keys]))
    for name, rows in summary.groupby("score", sort=False):
        if name not in names:
            value = dict(zip(study_tables.sae_keys(rows), rows["uniform"].astype(float), strict=True))
            found.numbers[str(name), "uniform"] = [_of_sae(*key, str(name), value.get(key), replicates) for key in keys]
    return found


def _saes(table: pd.DataFrame, scores: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """The finished SAEs that were measured, then their controls."""
    measured = pd.concat([scores[["path", "control"]], summary[["path", "control"]]]).drop_duplicates()
    finished = table.loc[np.isfinite(table["l0"].to_numpy(float)) & (table["l0"].to_numpy(float) > 0)]
    known = measured.merge(finished, on="path", how="inner")
    known = known.assign(control=known["control"].astype(object).where(known["control"].notna(), None))
    order = {path: i for i, path in enumerate(finished["path"])}
    known = known.assign(order=[order[path] for path in known["path"]], of_control=known["control"].notna())
    return known.sort_values(["of_control", "order"], kind="stable", ignore_index=True).drop(columns=["order", "of_control"])


def _texts(digests: Sequence[str]) -> list[int]:
    known = list(dict.fromkeys(filter(None, digests)))
    return [known.index(one) if one else -1 for one in digests]


def _of_features(
    study: Study, name: str, replicates: Replicates, shares: Sequence[float]
) -> dict[Key, list[Measured | None]]:
    """The means of one score. shares: of eligible latents; NaN where unknown."""
    found: dict[Key, list[Measured | None]] = {(name, mean): [] for mean in study_tables.MEANS}
    for i, (path, control) in enumerate(study_tables.sae_keys(study.saes)):
        score, weight, frequency = study.columns(i, name)
        if not np.isfinite(score).any():
            for numbers in found.values():
                numbers.append(None)
            continue
        each = {"uniform": feature_mean(score, weight), "by_frequency": feature_mean(score, weight * frequency)}
        for mean, number in each.items():
            rows = replicates.means.get((path, control, name, mean), np.empty(0))
            found[name, mean].append(number._replace(draws=rows[1:], documents=replicates.of(path, name),
                                                       text=replicates.text(path)))
        uniform = found[name, "uniform"][-1]
        found[name, "with_zeros"].append(uniform.scaled(shares[i]) if uniform and math.isfinite(shares[i]) else None)
        found[name, "several_tokens"].append(_of_several_tokens(study, i, name))
    return found


def _of_several_tokens(study: Study, i: int, name: str) -> Measured | None:
    """The mean without latents of a single token; None where these are not known."""
    if SINGLE not in study.features[i] or name == SINGLE:
        return None
    score, weight, _ = study.columns(i, name)
    several = study.features[i][SINGLE].to_numpy(float) == 0
    found = feature_mean(score[several], weight[several])
    return found if found.features else None


def _of_sae(path: str, control: str, name: str, value: float | None, replicates: Replicates) -> Measured | None:
    """A score of the whole SAE."""
    if value is None or not math.isfinite(value):
        return None
    rows = replicates.means.get((path, control, name, "uniform"), np.empty(0))
    return Measured(float(value), draws=rows[1:], documents=replicates.of(path, name), text=replicates.text(path))
