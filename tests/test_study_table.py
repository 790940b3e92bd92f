"""The tables of a study: planted latents from activations to summary."""
import dataclasses

import numpy as np
import pandas as pd
import pytest
from study_halves import collected, score, text_half
from test_study_scores import TOKENIZER, documents, grounds, planted, word_labels

from saesweep.storage import study_tables
from saesweep.study.comparison import measured, measures, summary
from saesweep.study.pages.of_sae import OfSAE, titles
from saesweep.study.scores import coverage
from saesweep.study.scores.conditions import conditions
from saesweep.study.table import Rows, about_sae

OPTIONS = {"features": 10, "min_fires": 50, "min_documents": 10, "draws": 20, "seed": 0}


@pytest.fixture(scope="module")
def rows() -> Rows:
    fit, test = text_half(documents(1), TOKENIZER), text_half(documents(2), TOKENIZER)
    random = (np.random.default_rng(seed).random((len(half.tokens), 6)) < 0.05 for seed, half in enumerate((fit, test)))
    saes = [collected(fit, test, planted(fit), planted(test, 1)), collected(fit, test, *random, control="random")]
    return score(saes, word_labels(fit, test), TOKENIZER, **OPTIONS)


def test_a_row_per_eligible_latent_with_the_columns_of_the_tables(rows, tmp_path):
    scores, _, labels, shares = rows.frames()
    study_tables.write_scores(tmp_path, scores)
    back = study_tables.read(tmp_path / study_tables.SCORES)
    assert list(back.columns[: len(study_tables.FEATURE)]) == study_tables.FEATURE
    assert {"rule", "rule_accuracy", "rule_recall", "lookup_token", "top_purity"} <= set(study_tables.score_names(back))
    assert not set(study_tables.WORDS) & set(study_tables.score_names(back))
    trained = scores[scores["control"].isna()].set_index("latent")
    assert sorted(trained.index) == [0, 1, 2, 3, 4] and trained["weight"].eq(1).all()
    assert trained.loc[0, "reason"] is None and trained.loc[2, "reason"] == "no rule_recall"
    assert shares.loc[0, ["dead", "rare", "eligible"]].tolist() == pytest.approx([1 / 6, 0, 5 / 6])
    assert list(labels.columns) == study_tables.LABEL and len(labels) == 8


def test_coverage_finds_each_label_with_its_latent_and_the_control_does_not(rows):
    _, saes, labels, _ = rows.frames()
    own = labels[labels["control"].isna()].set_index("label")
    assert own.loc["`self`", ["latent", "threshold", "precision", "recall", "f1"]].tolist() == [0, 0, 1, 1, 1]
    assert own.loc["`cat`", "latent"] == 4 and own.loc["`cat`", "recall"] == 1
    trained, random = saes.loc[saes["score"] == "coverage", "uniform"]
    assert trained == pytest.approx(own["f1"].mean()) and random < 0.1 < 0.5 < trained


def test_the_best_of_many_latents_finds_a_label_better_on_fit_than_on_test():
    """Chosen on test, the F1 of a control would grow with its width."""
    fit, test = text_half(documents(1), TOKENIZER), text_half(documents(2), TOKENIZER)
    random = (np.random.default_rng(seed).random((len(half.tokens), 100)) < 0.025 for seed, half in enumerate((fit, test)))
    both = grounds((collected(fit, test, *random), conditions(fit, test, word_labels(fit, test))))
    chosen = coverage.choose(both[0])
    found = measures.f1(**{key: one.sum(1) for key, one in coverage.measure(chosen, *both).items()})
    assert chosen.f1.mean() > 0.045 > 0.035 > found.mean() > 0.01


def test_a_latent_is_precise_from_95_in_100_on():
    tp, fp, fn = np.array([[95.0, 94, 0, 0], [5, 6, 0, 7], [9, 9, 3, 0]])
    assert coverage.precise(tp, fp, fn) == pytest.approx([1, 0, 0, np.nan], nan_ok=True)


def test_the_summary_has_means_intervals_and_the_control_beside_them(rows):
    scores, saes, _, shares = rows.frames()
    place = {"model": "made", "site": "resid", "layer": 0}
    about = {"path": "made/topk/16", "arch": "topk", "sparsity": 16, "seed": 0, "l0": 16.0, "fvu": 0.1}
    table = pd.DataFrame([place | about])
    found = summary.summary(measured.study(table, scores, saes, rows.replicates), shares)
    by = found[found["control"].isna()].set_index("score")
    rule = scores[scores["control"].isna()]["rule"]
    assert by.loc["rule", "uniform"] == pytest.approx(rule.mean()) == pytest.approx(0.8, abs=0.01)
    assert by.loc["rule", "baseline"] == 0 and by.loc["coverage", "baseline"] < 0.1
    assert by.loc["coverage", "low"] < by.loc["coverage", "uniform"] < by.loc["coverage", "high"]
    assert by.loc["rule", "by_frequency"] != by.loc["rule", "uniform"]


def test_the_measurement_is_row_0_of_the_means_under_drawn_documents(rows):
    scores, *_ = rows.frames()
    trained = scores[scores["control"].isna()]
    for name in ("rule", "lookup_token", "lookup_class", "uncertainty"):
        means = rows.replicates.means["made/topk/16", "", name, "uniform"]
        assert means[0] == pytest.approx(np.average(trained[name], weights=trained["weight"])) and len(means) == 21
        assert means[1:].std() < 0.05


def test_an_sae_with_a_fixed_coefficient_has_no_target_as_in_pareto_csv():
    text = text_half(documents(1), TOKENIZER)
    sae = collected(text, text, planted(text), planted(text))
    place = {"model": {"name": "tiny"}, "site": {"name": "resid"}, "layer": 1}
    fixed = dataclasses.replace(sae, config={**sae.config, **place, "arch": {"name": "relu", "coefficient": 6e-4}})
    assert [about_sae(one)["sparsity"] for one in (sae, fixed)] == [16, None]
    assert titles([OfSAE(fixed, pd.DataFrame(), TOKENIZER)]) == ["relu fixed coefficient"]


def test_without_labels_the_other_scores_stand():
    text = text_half(documents(1), TOKENIZER)
    sae = collected(text, text, planted(text), planted(text))
    found = score([sae], word_labels(text, text, names=()), TOKENIZER, **OPTIONS)
    names = study_tables.score_names(found.frames()[0])
    assert "rule" in names and "lookup_class" not in names and not found.labels and not found.saes


def test_without_eligible_latents_there_are_no_rows():
    text = text_half(documents(1), TOKENIZER)
    assert score([], word_labels(text, text), TOKENIZER, **OPTIONS).frames()[0].empty
    silent = np.zeros((len(text.tokens), 3))
    found = score([collected(text, text, silent, silent)], word_labels(text, text), TOKENIZER, **OPTIONS)
    assert found.frames()[0].empty and found.shares[0]["dead"] == 1 and found.saes[0]["uniform"] == 0
