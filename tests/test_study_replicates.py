"""Means under drawn documents: the same draws for all SAEs, exact sums, a file that gives back what it took."""

import math

import numpy as np
import pytest
from scipy import stats

from saesweep.study.comparison import measures, replicates
from saesweep.study.comparison.replicates import Means, Replicates


def test_row_0_counts_each_document_once_and_each_draw_has_as_many():
    counts = replicates.draw(30, 50, seed=0)
    assert counts.shape == (51, 30) and (counts[0] == 1).all() and (counts.sum(1) == 30).all()
    assert (counts == replicates.draw(30, 50, seed=0)).all() and (counts != replicates.draw(30, 50, seed=1)).any()


def test_pearson_of_sums_is_pearson_of_the_tokens():
    a, y = np.array([0.0, 2, 0, 4, 0, 0, 1, 3]), np.array([0.0, 1, 0, 1, 0, 0, 0, 1])
    mean = np.where(y > 0, 3.0, 0.2)  # the look-up by label of the worked example
    sums = {"n": 8.0, "a": a.sum(), "y": mean.sum(), "aa": (a * a).sum(), "yy": (mean * mean).sum(), "ay": (a * mean).sum()}
    r = measures.pearson(**{key: np.array([value]) for key, value in sums.items()})
    assert r[0] == pytest.approx(np.corrcoef(a, mean)[0, 1]) and r[0] == pytest.approx(0.9165, abs=5e-5)


def test_a_constant_prediction_scores_0_and_a_silent_latent_has_no_score():
    one, zero = np.ones(1), np.zeros(1)
    assert measures.pearson(8 * one, 8 * one, 8 * one, 20 * one, 8 * one, 8 * one)[0] == 0
    assert math.isnan(measures.pearson(8 * one, zero, 8 * one, zero, 20 * one, zero)[0])


def test_counts_give_f1_balanced_accuracy_and_ratios():
    tp, fp, tn, fn = (np.array([v, 0.0]) for v in (6.0, 2.0, 90.0, 2.0))
    assert measures.f1(tp, fp, fn)[0] == pytest.approx(0.75) and math.isnan(measures.f1(tp, fp, fn)[1])
    assert measures.balanced_accuracy(tp, fp, tn, fn)[0] == pytest.approx((6 / 8 + 90 / 92) / 2)
    assert measures.ratio(tp, tp + fp)[0] == 0.75 and math.isnan(measures.ratio(tp, tp)[1])


def tokens_of(latents=5, documents=12, tokens=30):
    random = np.random.default_rng(0)
    y = random.normal(size=(latents, documents, tokens))
    a = np.maximum(0, 0.5 * y + random.normal(size=y.shape))
    return a, y


def sums_of(a, y):
    n = np.full(a.shape[:2], float(a.shape[2]))
    return {"n": n, "a": a.sum(2), "y": y.sum(2), "aa": (a * a).sum(2), "yy": (y * y).sum(2), "ay": (a * y).sum(2)}


def test_each_draw_is_the_score_on_the_drawn_documents():
    a, y = tokens_of()
    fires, weights = (a > 0).sum(2).astype(float), np.array([1.0, 2, 1, 4, 1])
    counts = replicates.draw(12, 20, seed=3)
    found = replicates.of_sums(measures.pearson, sums_of(a, y), counts, weights, fires)
    for row in (0, 7):
        drawn = np.repeat(np.arange(12), counts[row])
        r = np.array([stats.pearsonr(a[i, drawn].ravel(), y[i, drawn].ravel()).statistic for i in range(5)])
        often = weights * fires[:, drawn].sum(1)
        assert found.uniform[row] == pytest.approx((weights * r).sum() / weights.sum())
        assert found.by_frequency is not None and found.by_frequency[row] == pytest.approx((often * r).sum() / often.sum())


def test_a_latent_that_no_drawn_document_fires_is_left_out_of_that_draw():
    a, y = tokens_of(latents=2)
    a[0, 1:] = 0
    counts = replicates.draw(12, 50, seed=0)
    found = replicates.of_sums(measures.pearson, sums_of(a, y), counts)
    only = replicates.of_sums(measures.pearson, {key: one[1:] for key, one in sums_of(a, y).items()}, counts)
    silent = counts[:, 0] == 0
    assert silent.any() and found.uniform[silent] == pytest.approx(only.uniform[silent]) and found.by_frequency is None
    assert (found.uniform[~silent] != only.uniform[~silent]).all()


def test_the_variance_of_the_draws_is_that_of_a_mean_over_documents():
    values = np.random.default_rng(0).normal(size=(1, 30))
    draws = replicates.of_sums(measures.ratio, {"part": values, "whole": np.ones((1, 30))}, replicates.draw(30, 20000, seed=0))
    variance = replicates.draws_variance(draws.uniform[1:], np.ones(30))
    assert variance is not None and variance.df == 29
    assert variance.value == pytest.approx(values.var(ddof=1) / 30, rel=0.05)


def test_few_documents_or_an_undefined_draw_have_no_variance():
    assert replicates.draws_variance(np.arange(5.0), np.ones(9)) is None
    assert replicates.draws_variance(np.array([1.0, math.nan]), np.ones(20)) is None
    assert replicates.draws_variance(np.arange(5.0), np.ones(20)) is not None


def test_the_file_gives_back_what_it_took(tmp_path):
    found = Replicates(texts={"lm/resid.9/topk/32": "0123"})
    found.add("lm/resid.9/topk/32", None, "rule", Means(np.array([0.5, 0.25]), np.array([0.5, 0.75])), np.array([10.0, 20.0]))
    found.add("lm/resid.9/topk/32", "random", "rule", Means(np.array([0.125, 0.0]), None), np.array([10.0, 20.0]))
    replicates.save(tmp_path / "replicates.safetensors", found)
    again = replicates.load(tmp_path / "replicates.safetensors")
    assert again.means.keys() == found.means.keys() and again.documents.keys() == found.documents.keys()
    assert all((again.means[key] == rows).all() for key, rows in found.means.items())
    assert (again.of("lm/resid.9/topk/32", "rule") == [10, 20]).all() and len(again.of("lm/resid.9/topk/32", "coverage")) == 0
    assert again.text("lm/resid.9/topk/32") == "0123" and again.text("lm/resid.9/topk/16") == ""
    assert not replicates.load(tmp_path / "none.safetensors").means


def test_the_file_has_the_same_bytes_each_time(tmp_path):
    found = Replicates(texts={f"path {n}": "0123" for n in range(20)})
    found.add("path 0", None, "rule", Means(np.array([0.5, 0.25]), None), np.array([10.0, 20.0]))
    for name in ("one", "two"):
        replicates.save(tmp_path / name, found)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
