"""Scores of a latent without a language model: planted latents, the reference's vectors, and what is chosen on what."""
import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_array
from study_halves import collected, text_half, words_tokenizer

from saesweep.study.labels import HalfLabels, Labels
from saesweep.study.scores.conditions import Ground, conditions
from saesweep.study.scores.lookup import label_correlations, label_shares, lookup_class, lookup_token, uncertainty
from saesweep.study.scores.moments import entropy
from saesweep.study.scores.purity import purity
from saesweep.study.scores.rule import grow, measure
from saesweep.study.scores.rule_words import words

VOCABULARY = ["self", "def", "cat", "dog", *(f"w{number}" for number in range(36))]
TOKENIZER = words_tokenizer(VOCABULARY)


def documents(seed: int, count: int = 60) -> list[str]:
    """Words at random, but for `dog`, which often stands after `def`."""
    draw = np.random.default_rng(seed)
    words = draw.choice(VOCABULARY, (count, 120))
    words[:, 1:] = np.where((words[:, :-1] == "def") & (draw.random((count, 119)) < 0.3), "dog", words[:, 1:])
    return [" ".join(row) for row in words]


def word_labels(*texts, names=("cat", "def", "dog", "self")) -> Labels:
    rows = [np.stack([text.tokens == VOCABULARY.index(name) for name in names]) for text in texts]
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


def grounds(made) -> tuple[Ground, Ground]:
    sae, (fit, test) = made
    return Ground(fit, sae.fit), Ground(test, sae.test)


def scores(score, made, latent: int):
    fit, test = grounds(made)
    return score(fit, test, fit.activity(latent), test.activity(latent))


def test_a_latent_that_fires_on_one_word_is_explained_by_token_and_label(made):
    assert scores(lookup_token, made, 0) == pytest.approx(1, abs=1e-3)
    assert scores(lookup_class, made, 0) == (pytest.approx(1), "`self`")
    assert scores(uncertainty, made, 0) == (pytest.approx(1), "`self`")


def test_one_label_explains_half_of_a_latent_that_fires_on_two_unrelated_words(made):
    assert scores(lookup_class, made, 1).value ** 2 == pytest.approx(0.5, abs=0.05)
    assert scores(lookup_token, made, 1) == pytest.approx(1, abs=1e-3)


def test_nothing_explains_a_latent_that_fires_at_random(made):
    for score in (lookup_token, lookup_class, uncertainty):
        value = scores(score, made, 2)
        assert abs(value if isinstance(value, float) else value.value) < 0.05


def test_a_latent_that_never_fires_scores_nothing(made):
    assert scores(lookup_token, made, 5) == 0 and scores(lookup_class, made, 5).value == 0


@pytest.mark.parametrize(("latent", "expected"), [
    (0, "fires on `self`"), (1, "fires on `cat`, or on `self`"), (2, ""), (3, "fires after `def`"),
    (4, "fires on `cat`, or on `dog` after `def`"),
])
def test_the_rule_of_a_planted_latent_in_words(made, latent, expected):
    fit, test = grounds(made)
    rule = grow(fit, fit.activity(latent))
    found = words(rule, fit.of, TOKENIZER)
    assert sorted(found.removeprefix("fires ").split(", or ")) == sorted(expected.removeprefix("fires ").split(", or "))
    result = measure(rule, test, test.activity(latent))
    if expected:
        assert result == (pytest.approx(1), 1, 1)
    else:
        assert result.rule == 0 and result.balanced_accuracy == 0.5 and np.isnan(result.recall)


def test_other_test_text_changes_no_choice(made):
    sae, _ = made
    other = text_half(documents(3), TOKENIZER)
    swapped = dataclasses.replace(sae, test=collected(other, other, planted(other, 5), planted(other, 5)).test)
    both = conditions(sae.fit.text, other, word_labels(sae.fit.text, other))
    for latent in range(5):
        ours, theirs = grounds(made), grounds((swapped, both))
        assert grow(ours[0], ours[0].activity(latent)) == grow(theirs[0], theirs[0].activity(latent))
        assert scores(lookup_class, made, latent).label == scores(lookup_class, (swapped, both), latent).label


def test_the_vectors_of_the_reference():
    a, y = np.array([0, 2, 0, 4, 0, 0, 1, 3.0]), np.array([0, 1, 0, 1, 0, 0, 0, 1], bool)
    text = text_half(["self def cat dog w0 w1 w2 w3"], TOKENIZER)
    sae = collected(text, text, a[:, None], a[:, None])
    label = HalfLabels(csr_array(y[None]), np.ones(8, bool))
    both = conditions(text, text, Labels(["y"], label, label))
    ground = Ground(both[0], sae.fit)
    assert label_correlations(ground, ground.activity(0)) == pytest.approx([0.9165], abs=1e-4)
    assert label_shares(ground, ground.activity(0)) == pytest.approx([0.5488], abs=1e-4)
    assert entropy(0.5) == pytest.approx(0.6931, abs=1e-4)
    found = purity(np.repeat([7, 3, 5, 1], [8, 6, 4, 2]))
    assert found == (0.4, False, pytest.approx(1.2799, abs=1e-4), pytest.approx(3.5961, abs=1e-4))
    assert purity(np.full(20, 4)) == (1, True, 0, 1)


def test_the_tokens_of_a_document_without_labels_and_sinks_do_not_count(made):
    sae, (fit, _) = made
    unknown = dataclasses.replace(fit, known=sae.fit.text.document > 3)
    half = dataclasses.replace(sae.fit, sinks=np.flatnonzero(sae.fit.text.document == 5)[:7])
    ground = Ground(unknown, half)
    assert ground.n == 56 * 120 - 7 and (sae.fit.text.document[ground.activity(0).positions] > 3).all()
