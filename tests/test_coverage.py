"""How often a 95% interval holds the truth, and how often nothing is called better: by simulation.

documents.csv holds the sums of three SAEs on each of many held-out documents of the default text. Documents are drawn from
them with replacement; the truth is the number of all of them.
"""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from saesweep.report.jackknife import numbers
from saesweep.report.measured_curve import Reading, Seeds
from saesweep.report.verdicts import judged

pytestmark = pytest.mark.slow
ARCHS = ("jumprelu", "topk", "gated")
DRAWS = 4000 if os.environ.get("CI_FULL") else 150
POPULATION = pd.read_csv(Path(__file__).with_name("documents.csv"))


def of(arch: str, drawn: pd.DataFrame) -> pd.DataFrame:
    """documents.csv of one SAE."""
    shared = drawn[["tokens", "variance", "scored", "nats_clean"]]
    return shared.assign(**{key: drawn[f"{key}_{arch}"] for key in ("active", "error", "nats_sae")}).reset_index(drop=True)


def reading(documents: pd.DataFrame, measure: str) -> Reading:
    value = documents["error"].sum() / documents["variance"].sum()
    if measure == "delta_loss":
        value = (documents["nats_sae"] - documents["nats_clean"]).sum() / documents["scored"].sum()
    points = pd.DataFrame({"l0": [documents["active"].sum() / documents["tokens"].sum()], measure: [value]})
    (found,) = numbers(points, [documents], measure)
    return Reading(found.value, found.weights, 0.0, None, {0: Seeds(1.0, 1, None)})


def compared(drawn: pd.DataFrame, measure: str) -> dict[tuple[str, str], dict]:
    each = {arch: reading(of(arch, drawn), measure) for arch in ARCHS}
    return {(a, b): judged(each[a], each[b]) for a, b in itertools.combinations(ARCHS, 2)}


@pytest.mark.parametrize("measure", ["fvu", "delta_loss"])
@pytest.mark.parametrize("documents", [10, 13, 20, 38, 88])
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_the_draws(measure, documents):
    """Within 2 points, and what chance makes of so many draws."""
    population = POPULATION if measure == "fvu" else POPULATION[POPULATION["scored"] > 0]
    truth = {pair: found["difference"] for pair, found in compared(population, measure).items()}
    random, held = np.random.default_rng(documents), []
    for _ in range(DRAWS):
        drawn = population.iloc[random.integers(0, len(population), documents)]
        held.append([found["low"] <= truth[pair] <= found["high"] for pair, found in compared(drawn, measure).items()])
    coverage, chance = np.mean(held), 2 * math.sqrt(0.95 * 0.05 / DRAWS)
    print(f"{measure}, {documents} documents: {np.mean(held, axis=0).round(3)}, mean {coverage:.3f}")
    assert 0.93 - chance <= coverage <= 0.97 + chance
