"""The coverage of the 95% intervals of a study, simulated: within 2 percentage points, plus chance."""

import math
import os

import numpy as np
import pytest
from made_study import made, sae

from saesweep.report.intervals import Variance
from saesweep.study.comparison import measures, replicates, usefulness
from saesweep.study.comparison.contrasts import contrast
from saesweep.study.comparison.joint import half_width
from saesweep.study.comparison.measured import Measured, feature_mean
from saesweep.study.comparison.report import report
from saesweep.study.comparison.verdicts import verdict

FULL = bool(os.environ.get("CI_FULL"))
DELTA = 0.05


def assert_covers(covered):
    """Within 2 percentage points of 95, plus two standard errors of the simulation."""
    coverage, chance = float(np.mean(covered)), 2 * math.sqrt(0.95 * 0.05 / len(covered))
    print(f"{100 * coverage:.1f}% of {len(covered)}")
    assert 0.93 - chance <= coverage <= min(0.97 + chance, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_paired_seeds_cover_the_true_difference(seeds):
    random, covered = np.random.default_rng(seeds), []
    for _ in range(4000 if FULL else 300):
        shared, own = random.normal(0, 0.1, (seeds, 1)), random.normal(0.5, 0.03, (seeds, 2))
        numbers = [Measured(value) for value in (shared + own).ravel().tolist()]
        found = contrast([{2 * i: 1.0, 2 * i + 1: -1.0} for i in range(seeds)], numbers).interval
        assert found is not None
        covered.append(found.low <= 0 <= found.high)
    assert_covers(covered)


def one_sae(random, documents, features, *, spread, weights=None):
    """The mean of a score that is a mean over tokens, of features and documents that are draws: the true mean is 0.5."""
    tokens, shared = documents
    own = shared + random.normal(0, spread, len(tokens))  # what documents do to all features of the SAE
    part = tokens * (0.5 + random.normal(0, 0.25, (features, 1)) + own + random.normal(0, 0.3, (features, len(tokens))))
    w = np.ones(features) if weights is None else weights
    sums = {"part": part, "whole": np.broadcast_to(tokens, part.shape)}
    found = replicates.of_sums(measures.ratio, sums, DRAWS[len(tokens)], w)
    number = feature_mean(part.sum(1) / tokens.sum(), w)
    assert number.value == pytest.approx(found.uniform[0])
    return number._replace(draws=found.uniform[1:], documents=tokens)


DRAWS = {n: replicates.draw(n, 200, seed=0) for n in (12, 40)}


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(("documents", "features", "spread"), [(12, 300, 0.1), (40, 300, 0.05), (40, 60, 0.1), (40, 30, 0.0)])
def test_one_seed_covers_the_true_difference_over_documents_and_features(documents, features, spread):
    random, covered = np.random.default_rng(features + documents), []
    for _ in range(2000 if FULL else 100):
        tokens = random.lognormal(5, 0.6, documents)
        text = tokens, random.normal(0, 0.2, documents)
        numbers = [one_sae(random, text, features, spread=spread) for _ in range(2)]
        found = contrast([{0: 1.0, 1: -1.0}], numbers).interval
        assert found is not None
        covered.append(found.low <= 0 <= found.high)
    assert_covers(covered)


def null_numbers(random, seeds, features, documents, ratio):
    """The numbers of SAEs of two architectures at one L0, a seed after the other, and of a control: all are equal in truth.

    ratio: the sd of what documents do to an architecture over that of what a seed does to an SAE.
    """
    tokens, shared = random.lognormal(5, 0.6, documents), random.normal(0, 0.2, documents)
    a, b, control = (shared + random.normal(0, ratio * 0.03, documents) for _ in range(3))
    own = [of + random.normal(0, 0.03 * (seeds > 1)) for _ in range(seeds) for of in (a, b)]
    return tokens, [one_sae(random, (tokens, of), features, spread=0.0) for of in (*own, control)]


def assert_covers_null(seeds, ratio, contrasts):
    """contrasts: of the numbers, `seeds` and the tokens: intervals by name, each of a number that is 0 in truth."""
    random, covered = np.random.default_rng(10 * seeds + int(ratio)), {}
    for _ in range(2000 if FULL else 300):
        tokens, numbers = null_numbers(random, seeds, 60, 40, ratio)
        for name, found in contrasts(numbers, seeds, tokens).items():
            covered.setdefault(name, []).append(found.low <= 0 <= found.high)
    for each in covered.values():
        assert_covers(each)


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("ratio", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_differences_between_architectures_and_to_a_control_are_covered_with_one_seed_and_with_three(seeds, ratio):
    def contrasts(numbers, seeds, _):
        pairs = [{2 * i: 1.0, 2 * i + 1: -1.0} for i in range(seeds)]
        over = [{2 * i: 1.0, 2 * seeds: -1.0} for i in range(seeds)]
        return {"difference": contrast(pairs, numbers).interval, "control": contrast(over, numbers).interval}

    assert_covers_null(seeds, ratio, contrasts)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_whole_study_has_these_intervals(seeds):
    """From its tables; CI_FULL=1 counts how often they cover."""
    def whole(numbers, tokens):
        keys = [(arch, seed, None) for seed in range(seeds) for arch in "ab"] + [("a", 0, "random")]
        saes, known = [], replicates.Replicates()
        for number, (arch, seed, control) in zip(numbers, keys, strict=True):
            saes.append(sae(arch, seed=seed, control=control, coverage=number.value))
            means = replicates.Means(np.append(number.value, number.draws), None)
            known.add(saes[-1]["path"], control, "coverage", means, tokens)
        found = report(made(*saes, replicates=known), delta=DELTA, primary=("coverage",))
        return found["places"][0]["scores"][0]

    random, covered = np.random.default_rng(seeds), []
    for _ in range(1000 if FULL else 3):
        tokens, numbers = null_numbers(random, seeds, 2000, 40, 3.0)
        (row,) = whole(numbers, tokens)["gaps"]
        covered.append(row["low"] <= 0 <= row["high"])
        assert row["varied"] == {"seeds": seeds * (seeds > 1), "fewest": 0, "most": 0, "documents": 40}
    if FULL:
        assert_covers(covered)


@pytest.mark.parametrize("documents", [12, 35])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_three_seeds_and_documents_cover_at_any_ratio_of_their_variances(share, documents):
    """share: of the documents in the variance."""
    random, covered = np.random.default_rng(documents), []
    for _ in range(20_000 if FULL else 2000):
        df = 2, documents - 1
        parts = [v * random.chisquare(n) / n for v, n in zip((1 - share, share), df, strict=True)]
        covered.append(abs(random.normal()) <= half_width([Variance(v, n) for v, n in zip(parts, df, strict=True)], 0.95))
    assert_covers(covered)


def test_unequal_weights_of_features_are_covered():
    """As of a mean over activations: the heaviest feature has about a tenth of the weight."""
    random, covered = np.random.default_rng(0), []
    for _ in range(4000 if FULL else 300):
        numbers = [feature_mean(random.normal(0.5, 0.25, 300), 10 ** random.normal(-3, 0.5, 300)) for _ in range(2)]
        found = contrast([{0: 1.0, 1: -1.0}], numbers).interval
        assert found is not None
        covered.append(found.low <= 0 <= found.high)
    assert_covers(covered)


def correlations(random, documents, features):
    """Pearson's r of each feature, whose true value varies with the feature and the document; mean and draws."""
    tokens, slope = documents
    y = random.normal(0, 1, (features, len(tokens), 40))
    r = np.clip(0.5 + random.normal(0, 0.15, (features, 1, 1)) + slope[None, :, None], -0.95, 0.95)
    a = r * y + np.sqrt(1 - r**2) * random.normal(0, 1, y.shape)
    sums = {"n": np.full(y.shape[:2], 40.0), "a": a.sum(2), "y": y.sum(2), "aa": (a * a).sum(2), "yy": (y * y).sum(2),
            "ay": (a * y).sum(2)}
    found = replicates.of_sums(measures.pearson, sums, DRAWS[len(tokens)])
    return feature_mean(measures.pearson(**{key: one.sum(1) for key, one in sums.items()}), np.ones(features))._replace(
        draws=found.uniform[1:], documents=tokens)


def test_a_mean_of_correlations_is_covered_and_equality_is_seldom_said_in_error():
    """Both SAEs are equal in truth; where one is better by delta, "equal" would be an error."""
    random, covered, said = np.random.default_rng(3), [], []
    for _ in range(1000 if FULL else 60):
        tokens = np.full(12, 40.0)
        numbers = [correlations(random, (tokens, random.normal(0, 0.05, 12)), 60) for _ in range(2)]
        found = contrast([{0: 1.0, 1: -1.0}], numbers)
        assert found.interval is not None
        covered.append(found.interval.low <= 0 <= found.interval.high)
        said.append(verdict(contrast([{0: 1.0, 1: -1.0}], [shifted(numbers[0], DELTA), numbers[1]]), 1, DELTA)["verdict"])
    assert_covers(covered)
    assert said.count("equal") <= 0.025 * len(said) + 2 * math.sqrt(0.025 * len(said))


def shifted(number, by):
    return number._replace(value=number.value + by, draws=number.draws + by)


@pytest.mark.parametrize("points", [8, 12, 20])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_a_rank_correlation_is_covered(points, rho):
    random, covered = np.random.default_rng(points), []
    true = 6 / math.pi * math.asin(rho / 2)
    for _ in range(4000 if FULL else 300):
        a, b = random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], points).T
        ranks = [one.argsort().argsort() for one in (a, b)]
        found = usefulness._interval(usefulness._pearson(*ranks), points)
        covered.append(found["low"] <= true <= found["high"])
    assert_covers(covered)
