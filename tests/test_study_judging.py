"""Which latents of a study a language model is asked about."""
import numpy as np
import pandas as pd
import pytest
from made_ratings import DOCUMENTS, _on_words, collected, text_of, words_tokenizer

from saesweep.study.judge.explanation import explanation_request
from saesweep.study.judging import _latents

SCORES = pd.DataFrame({"path": "a", "control": None, "latent": range(30), "rule_words": "a rule"})


@pytest.fixture(scope="module")
def sae():
    halves = _on_words(text_of(DOCUMENTS[:6]), 1.0), _on_words(text_of(DOCUMENTS[6:]), 1.0)
    return collected("a", "topk", halves)


@pytest.mark.parametrize("features, latents, asked", [(4, 50, 4), (300, 5, 5), (300, 50, 30)])
def test_no_more_latents_are_judged_than_the_plan_says(sae, features, latents, asked):
    """The scored latents behind the first `features` are no uniform sample: they were added for their frequency."""
    explainer = {"name": "local", "latents": latents, "windows": 4}
    found = [one.latent for one in _latents(sae, words_tokenizer(), SCORES, explainer, features)]
    assert found == sae.order[:asked].tolist()


def test_every_scored_latent_has_its_rule_as_explanation(sae):
    found = list(_latents(sae, words_tokenizer(), SCORES, {"name": "rules"}, 4))
    assert len(found) == 30 and {one.rule for one in found} == {"a rule"}


def test_few_windows_of_a_group_are_some_all_the_same(sae):
    one = next(iter(_latents(sae, words_tokenizer(), SCORES, {"name": "local", "latents": 1, "windows": 4}, 4)))
    assert len(one.test["decile"]) == 4 and all(window.active.any() for window in one.test["decile"])
    assert np.isclose(one.maximum, one.explain["top"][0].values.max()) and explanation_request(one) is not None
