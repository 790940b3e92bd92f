"""Simulates the coverage of the 95% intervals.

documents.csv holds the sums of three SAEs on many held-out documents of the default text. Each draw samples documents with
replacement; the true value is that of all documents.
"""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from saesweep.report.jackknife import replicates
from saesweep.report.measured_curve import CurveValue, PointShare
from saesweep.report.verdicts import compare_values

pytestmark = pytest.mark.slow
ARCHS = ("jumprelu", "topk", "gated")
DRAWS = 4000 if os.environ.get("CI_FULL") else 150
Columns = dict[str, np.ndarray]  # by name; a DataFrame takes most of the time of a draw
FILE = Path(__file__).with_name("documents.csv")
POPULATION: Columns = {key: column.to_numpy(float) for key, column in pd.read_csv(FILE).items()}


def chosen(population: Columns, at: np.ndarray) -> Columns:
    return {key: column[at] for key, column in population.items()}


def sums(arch: str, drawn: Columns) -> Columns:
    """The drawn documents in the columns of one SAE's documents.csv."""
    shared = {key: drawn[key] for key in ("tokens", "variance", "scored", "nats_clean")}
    return shared | {key: drawn[f"{key}_{arch}"] for key in ("active", "error", "nats_sae")}


def curve_value(documents: Columns, measure: str) -> CurveValue:
    value = documents["error"].sum() / documents["variance"].sum()
    if measure == "delta_loss":
        value = (documents["nats_sae"] - documents["nats_clean"]).sum() / documents["scored"].sum()
    points = pd.DataFrame({"l0": [documents["active"].sum() / documents["tokens"].sum()], measure: [value]})
    (found,) = replicates(points, [pd.DataFrame(documents)], measure)
    return CurveValue(found.value, found.weights, 0.0, None, {0: PointShare(1.0, 1, None)})


def compared(drawn: Columns, measure: str) -> dict[tuple[str, str], dict]:
    each = {arch: curve_value(sums(arch, drawn), measure) for arch in ARCHS}
    return {(a, b): compare_values(each[a], each[b]) for a, b in itertools.combinations(ARCHS, 2)}


@pytest.mark.parametrize("measure", ["fvu", "delta_loss"])
@pytest.mark.parametrize("documents", [10, 13, 20, 38, 88])
def test_95_percent_intervals_cover_the_true_value_in_95_percent_of_the_draws(measure, documents):
    """Within 2 percentage points, plus two standard errors of the simulation."""
    population = POPULATION if measure == "fvu" else chosen(POPULATION, POPULATION["scored"] > 0)
    true = {pair: found["difference"] for pair, found in compared(population, measure).items()}
    random, covered = np.random.default_rng(documents), []
    for _ in range(DRAWS):
        drawn = chosen(population, random.integers(0, len(population["tokens"]), documents))
        covered.append([found["low"] <= true[pair] <= found["high"] for pair, found in compared(drawn, measure).items()])
    coverage, chance = np.mean(covered), 2 * math.sqrt(0.95 * 0.05 / DRAWS)
    print(f"{measure}, {documents} documents: {np.mean(covered, axis=0).round(3)}, mean {coverage:.3f}")
    assert 0.93 - chance <= coverage <= 0.97 + chance
