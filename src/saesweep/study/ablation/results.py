"""The numbers of ablations as a table: a row per SAE, set of latents and draw. Its columns OF_SOME are there where an SAE has
further settings than others (variants.py), and where one has a fixed coefficient.

The differences to the SAE without ablation are of the same tokens, so that their intervals, over documents, are those of
paired numbers.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from saesweep.config.settings import target
from saesweep.report.intervals import Variance, document_variance, interval, seed_variance
from saesweep.storage.curves import VARIANT
from saesweep.study.ablation.latents import shares
from saesweep.study.ablation.measure import Measured, Sums
from saesweep.study.subjects import Subject

MEASURES = ("fvu", "delta_loss")
OF_SOME = (VARIANT, "coefficient")
SHARES = ["latents", "share_of_latents", "share_of_firings", "share_of_energy"]


class Replicates(NamedTuple):
    """A number on all documents, then without each of them, and the weights of the documents."""

    rows: Float64[np.ndarray, " rows"]
    weights: Sums


class Row(NamedTuple):
    """Of one SAE and ablation."""

    names: dict[str, Any]
    shares: dict[str, float]
    value: dict[str, Replicates]  # by measure: fvu, and delta_loss where it is measured
    difference: dict[str, Replicates]  # to the SAE without ablation


def rows(subject: Subject, found: Measured, sweep: str) -> list[Row]:
    """sweep: the name of the SAE's sweep."""
    config = subject.config
    names = {"sweep": sweep, "model": config["model"]["name"], "site": config["site"]["name"],
             "layer": config["layer"], "arch": config["arch"]["name"], VARIANT: subject.variant,
             "sparsity": target(config) or subject.l0, "coefficient": config["arch"]["coefficient"], "seed": config["seed"]}
    made = []
    for i, one in enumerate(found.ablations):
        what = {"ablated": one.ablated, "set_to": one.set_to, "draw": one.draw}
        value = {"fvu": replicates(found.error[i], found.variance)}
        difference = {"fvu": replicates(found.error[i] - found.error[0], found.variance)}
        if (loss := found.loss) and (nats := loss.nats[i]) is not None:
            value["delta_loss"] = replicates(nats - loss.clean, loss.scored)
            difference["delta_loss"] = replicates(nats - loss.nats[0], loss.scored)
        made.append(Row({**names, **what, "path": subject.path}, shares(found.moments, one.latents), value, difference))
    return made


def replicates(parts: Sums, weights: Sums) -> Replicates:
    """sum parts / sum weights."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a single document leaves nothing
        without = (parts.sum() - parts) / (weights.sum() - weights)
        return Replicates(np.append(parts.sum() / weights.sum(), without), weights)


def table(found: Sequence[Row]) -> pd.DataFrame:
    """A row per SAE and ablation, with intervals over documents."""
    return of_rows([
        {**one.names, **one.shares, **columns(
            {key: float(own.rows[0]) for key, own in one.value.items()}, {key: [own] for key, own in one.difference.items()})}
        for one in found])


def of_rows(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Without those of the columns OF_SOME that no row has a value of."""
    return pd.DataFrame(rows).drop(columns=[key for key in OF_SOME if not any(row[key] for row in rows)])


def columns(values: Mapping[str, float], differences: Mapping[str, Sequence[Replicates]]) -> dict[str, float | None]:
    """By measure: the value, the mean difference of some seeds, and its interval."""
    columns: dict[str, float | None] = {}
    for key, seeds in differences.items():
        mean = np.mean([one.rows for one in seeds], axis=0)
        variances: list[Variance | None] = [document_variance(mean, seeds[0].weights)]
        if len(seeds) > 1:
            one = seed_variance([float(own.rows[0]) for own in seeds])
            variances.append(Variance(one.value / len(seeds), one.df))
        found = interval(float(mean[0]), variances)
        columns |= {key: values.get(key), f"{key}_difference": float(mean[0]),
                    f"{key}_low": found.low if found else math.nan, f"{key}_high": found.high if found else math.nan}
    return columns
