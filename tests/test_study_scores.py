"""Scores of a latent without a language model: planted latents, the reference's vectors, and what is chosen on what."""
import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_array
from study_halves import collected, text_half, words_tokenizer

from saesweep.study.labels import HalfLabels, Labels
from saesweep.study.scores import of_latent, rule
from saesweep.study.scores.conditions import conditions
from saesweep.study.scores.ground import Ground
from saesweep.study.scores.lookup import best_class, best_informed, lookup_class, lookup_uncertainty, table
from saesweep.study.scores.moments import entropy
from saesweep.study.scores.of_latent import MEASURES, purity

VOCABULARY = ["self", "def", "cat", "dog", *(f"w{number}" for number in range(36))]
TOKENIZER = words_tokenizer(VOCABULARY)


def documents(seed: int, count: int = 60) -> list[str]:
    """Words at random, but for `dog`, which often stands after `def`."""
    draw = np.random.default_rng(seed)
    words = draw.choice(VOCABULARY, (count, 120))
    words[:, 1:] = np.where((words[:, :-1] == "def") & (draw.random((count, 119)) < 0.3), "dog", words[:, 1:])
    return [" ".join(row) for row in words]


def word_labels(*texts, names=("cat", "def", "dog", "self")) -> Labels:
    rows = [text.tokens == np.array([VOCABULARY.index(name) for name in names], int)[:, None] for text in texts]
    halves = [HalfLabels(csr_array(row), np.ones(row.shape[1], bool)) for row in rows]
    return Labels([f"`{name}`" for name in names], *halves)


def planted(text, seed: int = 0) -> np.ndarray:
    """Latents: 0 on self; 1 on self and cat; 2 at random; 3 after def; 4 on dog after def, and on cat; 5 never."""
    draw = np.random.default_rng(seed)
    at = {name: text.tokens == VOCABULARY.index(name) for name in VOCABULARY}
    after = np.concatenate([[False], at["def"][:-1] & (text.block[1:] == text.block[:-1])])
    columns = [at["self"], at["self"] | at["cat"], draw.random(len(text.tokens)) < 0.05, after,
               (at["dog"] & after) | at["cat"], np.zeros(len(text.tokens), bool)]
    return np.stack(columns, 1) * np.where(np.arange(6) == 2, 0.5 + draw.random((len(text.tokens), 1)), 1.0)


@pytest.fixture(scope="module")
def made():
    fit, test = text_half(documents(1), TOKENIZER), text_half(documents(2), TOKENIZER)
    sae = collected(fit, test, planted(fit), planted(test, 1))
    return sae, conditions(fit, test, word_labels(fit, test))


def grounds(made: tuple) -> tuple[Ground, Ground]:
    sae, (fit, test) = made
    return Ground(fit, sae.fit), Ground(test, sae.test)


def measured(name: str, sums: dict) -> float:
    return float(MEASURES[name][1](**{part: one.sum(keepdims=True) for part, one in sums.items()})[0])


def scored(made: tuple, latent: int) -> dict:
    """All scores and words of a latent by name."""
    found = of_latent.score(*grounds(made), latent, TOKENIZER)
    return {name: measured(name, found.sums[key]) for name, (key, _) in MEASURES.items()} | found.numbers | found.words


def test_a_latent_that_fires_on_one_word_scores_one_everywhere(made):
    found = scored(made, 0)
    assert found["lookup_label"] == found["uncertainty_label"] == "`self`"
    names = ("lookup_class", "uncertainty", "rule", "rule_accuracy", "rule_recall", "top_purity", "single_token")
    assert [found[name] for name in names] == pytest.approx([1] * 7) and found["lookup_token"] == pytest.approx(1, abs=1e-3)
    assert found["rule_words"] == "fires on `self`" and found["top_token"] == "`self`" and found["score_gap"] == 0


def test_one_label_explains_half_of_a_latent_that_fires_on_two_unrelated_words(made):
    found = scored(made, 1)
    assert found["lookup_class"] ** 2 == pytest.approx(0.5, abs=0.05)
    assert found["lookup_token"] == pytest.approx(1, abs=1e-3) and found["rule"] == pytest.approx(1)
    assert found["top_perplexity"] == pytest.approx(2, abs=0.1) and found["single_token"] == 0


def test_nothing_explains_a_latent_that_fires_at_random(made):
    found = scored(made, 2)
    assert all(abs(found[name]) < 0.05 for name in ("lookup_token", "lookup_class", "uncertainty"))
    assert found["rule"] == 0 and found["rule_accuracy"] == 0.5 and np.isnan(found["rule_recall"])


@pytest.mark.parametrize(("latent", "expected"), [
    (0, ["on `self`"]), (1, ["on `cat`", "on `self`"]), (2, []), (3, ["after `def`"]),
    (4, ["on `cat`", "on `dog` after `def`"]), (5, []),
])
def test_the_rule_of_a_planted_latent_in_words(made, latent, expected):
    found = of_latent.score(*grounds(made), latent, TOKENIZER) if latent < 5 else None
    words = found.words["rule_words"] if found else ""
    assert sorted(filter(None, words.removeprefix("fires ").split(", or "))) == expected
    if expected:
        assert measured("rule", found.sums["rule"]) == measured("rule_accuracy", found.sums["firing"]) == pytest.approx(1)


def test_the_predicted_value_is_the_mean_of_the_leaf_on_fit(made):
    sae, both = made
    doubled = collected(sae.fit.text, sae.test.text, 2 * planted(sae.fit.text), planted(sae.test.text))
    fit, _ = grounds((doubled, both))
    grown = rule.grow(fit, fit.activity(1))
    assert [leaf.mean for leaf in grown.leaves] == [2, 2] and grown.rest == 0


def test_a_latent_that_never_fires_has_an_empty_rule(made):
    fit, _ = grounds(made)
    assert rule.grow(fit, fit.activity(5)) == rule.Rule([], 0.0)


def test_other_test_text_changes_no_choice(made):
    sae, _ = made
    other = text_half(documents(3), TOKENIZER)
    swapped = dataclasses.replace(sae, test=collected(other, other, planted(other, 5), planted(other, 5)).test)
    theirs = (swapped, conditions(sae.fit.text, other, word_labels(sae.fit.text, other)))
    for latent in range(5):
        (ours, _), (fit, _) = grounds(made), grounds(theirs)
        assert rule.grow(ours, ours.activity(latent)) == rule.grow(fit, fit.activity(latent))
        one, two = (of_latent.score(*grounds(x), latent, TOKENIZER).words for x in (made, theirs))
        assert {**one, "top_token": ""} == {**two, "top_token": ""}


def test_the_vectors_of_the_reference():
    a, y = np.array([0, 2, 0, 4, 0, 0, 1, 3.0]), np.array([0, 1, 0, 1, 0, 0, 0, 1], bool)
    text = text_half(["self def cat dog w0 w1 w2 w3"], TOKENIZER)
    sae = collected(text, text, a[:, None], a[:, None])
    label = HalfLabels(csr_array(np.stack([~y, y])), np.ones(8, bool))
    fit, test = grounds((sae, conditions(text, text, Labels(["not y", "y"], label, label))))
    assert best_class(fit, fit.activity(0)) == 1 and best_informed(fit, fit.activity(0)) == 0  # both say the same of firing
    assert measured("lookup_class", lookup_class(1, test, test.activity(0))) == pytest.approx(0.9165, abs=1e-4)
    assert measured("uncertainty", lookup_uncertainty(1, test, test.activity(0))) == pytest.approx(0.5488, abs=1e-4)
    assert float(entropy(np.array(y.mean() + 1 / 8))) == pytest.approx(0.6931, abs=1e-4)  # fires on 4 of 8
    found = purity(np.repeat([7, 3, 5, 1], [8, 6, 4, 2]))
    assert found == (0.4, False, pytest.approx(1.2799, abs=1e-4), pytest.approx(3.5961, abs=1e-4))
    assert purity(np.full(20, 4)) == (1, True, 0, 1)


def test_the_look_up_by_token_adds_two_tokens_of_the_mean_to_each_and_has_the_mean_for_a_new_one():
    text = text_half(["self self def cat"], TOKENIZER)
    sae = collected(text, text, np.array([[2.0], [0], [1], [0]]), np.zeros((4, 1)))
    fit, _ = grounds((sae, conditions(text, text, word_labels(text, text))))
    ids = [VOCABULARY.index(word) for word in ("self", "def", "cat")]
    assert fit.of.ids.tolist() == sorted(ids)
    assert table(fit, fit.activity(0)).tolist() == pytest.approx([3.5 / 4, 2.5 / 3, 1.5 / 3, 0.75])


@pytest.fixture(scope="module")
def strong_on_self(made):
    """A latent that is strong on self, and weak on tokens at random."""
    sae, both = made
    halves = []
    for seed, text in enumerate((sae.fit.text, sae.test.text)):
        weak = 0.1 * (np.random.default_rng(seed).random(len(text.tokens)) < 0.03)
        halves.append(np.where(text.tokens == VOCABULARY.index("self"), 10.0, weak)[:, None])
    return collected(sae.fit.text, sae.test.text, *halves), both


def test_the_gap_is_the_rule_on_the_highest_decile_less_that_on_the_lowest(strong_on_self):
    found = scored(strong_on_self, 0)
    assert found["rule_words"] == "fires on `self`" and found["score_gap"] == 1


def test_a_latent_is_of_a_single_token_by_its_strongest_activations_whatever_its_weakest_are_on(strong_on_self):
    found = scored(strong_on_self, 0)
    assert (found["single_token"], found["top_purity"], found["top_entropy"]) == (1, 1, 0)


def test_no_score_depends_on_the_scale_of_a_latent(made):
    sae, both = made
    scaled = collected(sae.fit.text, sae.test.text, *(1000 * planted(half.text, seed) for seed, half in
                                                      enumerate((sae.fit, sae.test))))
    for latent in range(5):
        one, other = scored(made, latent), scored((scaled, both), latent)
        assert {key: value for key, value in other.items() if isinstance(value, str)} == {
            key: value for key, value in one.items() if isinstance(value, str)}
        numbers = [key for key, value in one.items() if not isinstance(value, str)]
        assert [other[key] for key in numbers] == pytest.approx([one[key] for key in numbers], abs=1e-5, nan_ok=True)


def test_the_tokens_of_a_document_without_labels_and_sinks_do_not_count(made):
    sae, (fit, _) = made
    unknown = dataclasses.replace(fit, known=sae.fit.text.document > 3)
    half = dataclasses.replace(sae.fit, sinks=np.flatnonzero(sae.fit.text.document == 5)[:7])
    ground = Ground(unknown, half)
    assert ground.n == 56 * 120 - 7 and ground.tokens[:6].tolist() == [0, 0, 0, 0, 120, 113]
    assert (sae.fit.text.document[ground.activity(0).positions] > 3).all()
