"""Which latents are scored, and the means over them."""
import numpy as np
import pytest

from saesweep.study import sampling


def test_the_means_of_the_reference():
    s, f = np.array([0.2, 0.4, 0.6, 0.8, 0.1]), np.array([0.001, 0.002, 0.004, 0.003, 0.2])
    w = 1 / np.array([0.5, 0.5, 0.5, 0.5, 1])
    assert sampling.weighted_mean(s, w).value == pytest.approx(0.4556, abs=1e-4)
    assert sampling.weighted_mean(s, w * f).value == pytest.approx(0.1436, abs=1e-4)


def test_a_latent_without_a_score_is_in_no_mean():
    mean = sampling.weighted_mean(np.array([0.2, np.nan, 0.4]), np.ones(3))
    assert mean.value == pytest.approx(0.3) and mean.low < 0.3 < mean.high
    assert np.isnan(sampling.weighted_mean(np.array([np.nan]), np.ones(1)).value)


def test_a_larger_sample_begins_with_the_smaller_one():
    ordered = sampling.order(0, "jumprelu/16", None, 1000)
    allowed, frequency = np.arange(1000) % 3 > 0, np.full(1000, 5e-3)
    small, large = (sampling.sample(ordered, allowed, frequency, n) for n in (100, 300))
    assert (large.latents[:100] == small.latents).all() and allowed[large.latents].all()
    assert small.weight[0] == pytest.approx(666 / 100)


def test_each_stratum_is_topped_up_and_weighted_by_what_it_stands_for():
    frequency = np.concatenate([np.full(900, 5e-3), np.full(60, 5e-4), np.full(30, 0.05), np.full(10, 0.1)])
    chosen = sampling.sample(sampling.order(0, "a", None, 1000), np.ones(1000, bool), frequency, 100)
    counts = np.bincount(chosen.stratum, minlength=4)
    assert counts[0] == 25 and counts[2] == 25 and counts[3] == 10 and 70 < counts[1] < 101
    assert np.bincount(chosen.stratum, chosen.weight) == pytest.approx([60, 900, 30, 10])


def test_the_order_depends_on_the_sae_and_the_seed():
    orders = [sampling.order(*key, 50).tolist() for key in ((0, "a", None), (0, "b", None), (0, "a", "random"), (1, "a", None))]
    assert len({tuple(one) for one in orders}) == 4 and all(sorted(one) == list(range(50)) for one in orders)
