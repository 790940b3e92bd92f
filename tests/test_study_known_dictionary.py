"""Latents against the features of a known dictionary, and features that have parents."""
import numpy as np
import pytest
import torch
from study_halves import hits

from saesweep.data.synthetic import SyntheticSource
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.rng import generator
from saesweep.study.known_dictionary import agreement, recovery

PLACE = HookPoint("synthetic", "output")
SIZES = {"features": 12, "d_in": 24, "l0": 3.0, "spread": 4.0, "noise": 0.02, "seed": 0, "window": 64, "stream_seed": 0}


def source(**more) -> SyntheticSource:
    return SyntheticSource(PLACE, **{**SIZES, **more})


def truth(seed: int, tokens: int = 2000, **more) -> np.ndarray:
    return source(**more).draw_with_features(tokens, generator(seed))[1].numpy()


def recovered(latents_of) -> dict:
    both = [truth(seed) for seed in (1, 2)]
    found = [agreement(a, hits(f := latents_of(a), np.arange(f.shape[1]))) for a in both]
    return recovery(*found)


def test_a_dictionary_that_is_known_exactly_scores_one_in_both_directions():
    assert list(recovered(lambda a: a[:, ::-1]).values()) == pytest.approx([1] * 5)


def test_the_recall_side_sees_missing_features_and_the_latent_side_latents_without_a_feature():
    half = recovered(lambda a: a[:, :6])
    assert half["known_f1"] == pytest.approx(0.5) and half["known_r_latents"] == pytest.approx(1)
    assert 0.4 < half["known_r_features"] < 0.6
    noise = np.random.default_rng(0)
    more = recovered(lambda a: np.hstack([a, noise.random(a.shape) * (noise.random(a.shape) < 0.5)]))
    assert more["known_f1"] == pytest.approx(1) and more["known_r_features"] == pytest.approx(1)
    assert more["known_r_latents"] == pytest.approx(0.5, abs=0.03) and more["known_r_latents_by_frequency"] < 0.4


def test_two_latents_of_one_feature_share_it_only_on_the_latent_side():
    found = recovered(lambda a: np.hstack([a[:, :6], a[:, :6]]))
    assert found["known_f1"] < 0.7 and found["known_precision"] == pytest.approx(1)


def test_without_parents_the_draws_are_those_of_before():
    features, d_in = SIZES["features"], SIZES["d_in"]
    random, one = generator(5), source()
    strength = 0.5 + torch.rand(100, features, generator=random)
    active = torch.rand(100, features, generator=random) < one.probability
    x = (active * strength) @ one.dictionary + one.noise * torch.randn(100, d_in, generator=random)
    assert torch.equal(one.draw(100, generator(5)), x)


def test_a_child_is_active_only_where_its_parent_is_and_as_often_as_before():
    a, before = truth(3, 40_000, parents=0.25), truth(3, 40_000)
    assert not ((a[:, -3:] > 0) & (a[:, :3] == 0)).any()
    assert (a > 0).mean(0) == pytest.approx((before > 0).mean(0), abs=0.01)
