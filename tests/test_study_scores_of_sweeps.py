"""The scores of collected sweeps: of a language model on text, and of a known dictionary."""
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small import tiny
from studied import asked, collected, trained, trained_on_dictionary  # noqa: F401 fixtures
from study_halves import score

from saesweep.lm.hooks import HookPoint
from saesweep.lm.unembedding import unembedding
from saesweep.storage import study_tables, sweep_table
from saesweep.study.comparison import measured, summary
from saesweep.study.dictionary import FromDictionary
from saesweep.study.hits import HALVES
from saesweep.study.known_dictionary import KnownDictionary, feature_labels
from saesweep.study.labels import label
from saesweep.study.scores.logits import LogitScores
from saesweep.training.loaded import load

pytestmark = pytest.mark.slow
OPTIONS = {"features": 10, "min_fires": 10, "min_documents": 3, "draws": 20, "seed": 0}


def decoder(sae) -> torch.Tensor | None:
    """Of a trained SAE of the residual stream."""
    return None if sae.control or "resid" not in sae.path else load(sae.folder).W_dec


def test_a_sweep_on_text_from_its_folder_to_the_summary(trained, tmp_path):  # noqa: F811
    found = collected(trained, "tokens=4000", "dense_tokens=1000")
    text, tokenizer = found[0].fit.text, tiny().tokenizer
    labels = label("text", text, found[0].test.text, tokenizer, min_tokens=50, min_documents=5)
    assert {"within a word", "at the start of a word", "Latin script"} <= set(labels.names)
    rows = score(found, labels, tokenizer, **OPTIONS, extras=[LogitScores(unembedding(tiny().module), decoder)])
    scores, saes, _, shares = rows.frames()
    study_tables.write_scores(tmp_path, scores)
    back = study_tables.read(tmp_path / study_tables.SCORES)
    assert back["rule"].to_numpy() == pytest.approx(scores["rule"].to_numpy(), nan_ok=True)
    of_logits = scores.loc[scores["control"].isna() & scores["path"].str.contains("resid"), "logit_kurtosis"]
    assert of_logits.notna().all() and scores.loc[scores["path"].str.contains("mlp"), "logit_kurtosis"].isna().all()
    table = sweep_table.table(trained)
    whole = summary.summary(measured.study(table, back, saes, rows.replicates), shares)
    means = whole[whole["control"].isna()].pivot_table("uniform", "path", "score")
    assert {"rule", "lookup_token", "coverage", "probe_1", "splits"} <= set(means.columns)
    assert means["rule"].between(-1, 1).all()
    assert whole.loc[whole["score"] == "rule", "baseline"].notna().any()


def test_a_sweep_on_a_known_dictionary(trained_on_dictionary, tmp_path):  # noqa: F811
    folder = Path(shutil.copytree(trained_on_dictionary, tmp_path / "sweep"))
    found = collected(folder, "tokens=8000", "dense_tokens=2000", "controls=[random]")
    source = FromDictionary(found[0].config, asked("tokens=8000"), HookPoint("synthetic", "output"))
    truth = {name: source.features(name).numpy().astype(np.float64) for name in HALVES}
    labels = feature_labels(truth)
    _, saes, _, _ = score(found, labels, tiny().tokenizer, **OPTIONS, extras=[KnownDictionary(truth)]).frames()
    rows = saes[saes["score"] == "known_r_features"]
    by = {(row["control"], row["arch"]): row["uniform"] for row in rows.to_dict("records")}
    assert by[None, "topk"] > by["random", "jumprelu"] > 0
