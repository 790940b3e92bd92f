"""Which latents are scored."""
import dataclasses

import numpy as np
import pytest
from study_halves import collected, text_half

from saesweep.study import sampling
from saesweep.study.hits import Collected


def made(frequency: np.ndarray, kept: np.ndarray | None = None) -> Collected:
    text = text_half(["ab" * 500] * 10)
    a = np.random.default_rng(0).permuted(np.arange(len(text.tokens))[:, None] < frequency * len(text.tokens), axis=0)
    return collected(text, text, a * 1.0, a * 1.0, kept=kept)


@pytest.mark.slow
def test_a_larger_sample_begins_with_the_smaller_one():
    sae, allowed = made(np.full(400, 5e-3)), np.arange(400) % 4 > 0
    small, large = (sampling.sample(sae, allowed, n) for n in (100, 200))
    assert (large.latents[:100] == small.latents).all() and allowed[large.latents].all() and len(large.latents) == 200
    assert small.weight[0] == pytest.approx(3)


@pytest.mark.slow
def test_each_stratum_is_topped_up_and_weighted_by_what_it_stands_for():
    sae = made(np.concatenate([np.full(400, 5e-3), np.full(60, 5e-4), np.full(30, 0.05), np.full(10, 0.1)]))
    chosen = sampling.sample(sae, np.ones(500, bool), 100)
    counts = np.bincount(chosen.stratum, minlength=4)
    assert counts[0] == 25 and counts[2] == 25 and counts[3] == 10 and 70 < counts[1] < 101
    assert np.bincount(chosen.stratum, chosen.weight) == pytest.approx([60, 400, 30, 10])


def test_only_latents_whose_activations_are_kept_are_drawn_and_they_stand_for_all():
    sae = made(np.full(100, 5e-3))
    sae = made(np.full(100, 5e-3), kept=sae.order[:40])
    chosen = sampling.sample(sae, np.ones(100, bool), 60)
    assert sorted(chosen.latents) == sorted(sae.order[:40]) and chosen.weight.sum() == pytest.approx(100)


def test_a_latent_is_eligible_where_it_fires_often_enough_in_both_halves():
    sae = made(np.array([5e-3, 5e-4]))
    assert sampling.eligible(sae, 50, 10).tolist() == [True, False]
    rare = dataclasses.replace(sae, fit=dataclasses.replace(sae.fit, documents=np.array([9, 9])))
    assert not sampling.eligible(rare, 50, 10).any()
