"""Probes on few latents: what they read, and into how many latents a label is split."""
import numpy as np
import pytest
from study_halves import collected, text_half
from test_study_scores import TOKENIZER, VOCABULARY, documents, word_labels

from saesweep.study.comparison import measures
from saesweep.study.scores.conditions import conditions
from saesweep.study.scores.ground import Ground
from saesweep.study.scores.logistic import best_threshold, lbfgs, newton
from saesweep.study.scores.probes import Probed, probe


def probed(a_of, names=("cat",)) -> Probed:
    """The probes of labels on the latents that a_of makes of a text."""
    fit, test = text_half(documents(1), TOKENIZER), text_half(documents(2), TOKENIZER)
    sae = collected(fit, test, a_of(fit), a_of(test))
    first, second = conditions(fit, test, word_labels(fit, test, names=names))
    return probe(Ground(first, sae.fit), Ground(second, sae.test))


def f1(found: Probed, k: int) -> float:
    return float(measures.f1(**{key: rows.sum(1) for key, rows in found.sums[k].items()})[0])


def split_in(count: int):
    """Latents that share the label `cat` by document, and one of another word."""
    def a_of(text):
        cat = text.tokens == VOCABULARY.index("cat")
        parts = [cat & (text.document % count == part) for part in range(count)]
        return np.stack([text.tokens == VOCABULARY.index("dog"), *parts], 1) * 1.0
    return a_of


def test_one_latent_of_a_label_reads_it_exactly_and_it_is_not_split():
    found = probed(split_in(1))
    assert [f1(found, k) for k in (1, 2, 5)] == pytest.approx([1, 1, 1]) and found.split == [[1]]


def test_a_label_that_three_latents_share_is_split_in_three():
    found = probed(split_in(3))
    assert found.split[0] == sorted(found.split[0], key=found.split[0].index) and set(found.split[0]) == {1, 2, 3}
    assert f1(found, 1) == pytest.approx(0.5, abs=0.05) and f1(found, 2) == pytest.approx(0.8, abs=0.05)
    assert f1(found, 5) == pytest.approx(1)


def test_a_probe_on_latents_that_know_nothing_of_the_label_finds_nothing():
    def noise(text):
        return (np.random.default_rng(len(text.documents[0])).random((len(text.tokens), 8)) < 0.05) * 1.0
    assert f1(probed(noise), 5) < 0.1


def test_a_latent_that_fires_everywhere_but_on_the_label_reads_it_too():
    found = probed(lambda text: ((text.tokens != VOCABULARY.index("cat")) * 1.0)[:, None])
    assert f1(found, 1) == pytest.approx(1)


def test_weighted_rows_are_as_many_rows():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(200, 3)), draw.random(200) < 0.3
    weight = draw.integers(1, 4, 200).astype(float)
    many = np.repeat(np.arange(200), weight.astype(int))
    assert newton(x, y, weight) == pytest.approx(newton(x[many], y[many], np.ones(len(many))), abs=1e-6)


def test_both_solvers_find_the_minimum():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2000, 4))
    y = draw.random(2000) < 1 / (1 + np.exp(-(x @ np.array([1.0, -2, 0, 0.5]) - 1)))
    v = newton(x, y, np.ones(2000))
    assert v == pytest.approx([1, -2, 0, 0.5], abs=0.2)
    assert lbfgs(x, y[:, None])[:, 0] == pytest.approx(v, abs=0.02)


def test_the_threshold_of_largest_f1():
    z, y = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False])
    assert best_threshold(z, y, np.ones(4)) == pytest.approx((0.45, 0.8))
    assert best_threshold(z, y, np.array([1, 1, 9, 1.0])) == pytest.approx((0.85, 2 / 3))
