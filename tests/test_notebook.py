"""A finished sweep in a notebook: what is loaded is what was trained and measured."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import warm
from small import ARCHS, command, write_text
from standin.cli import ENV

import saesweep
from saesweep import evaluation
from saesweep.errors import UsageError
from saesweep.metrics import CrossEntropy
from saesweep.reading import harvest
from saesweep.sweep.inputs import ReadText, point_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    words = (f"arch={','.join(ARCHS)}", "site=mlp", "layer=0", f"hydra.sweep.dir={folder}/outputs/default", "tokens=12800")
    assert warm.run(command(write_text(folder, 200), *words), folder, ENV).returncode == 0
    return folder / "outputs" / "default"


@pytest.fixture(scope="module")
def held_out(sweep):
    config = saesweep.load(next(sweep.glob("*/*/topk/*"))).config
    inputs = ReadText(config, [point_of(config)])
    return inputs._held_out(evaluation.EVALUATION, config["evaluation"]["tokens"])


@pytest.mark.parametrize("arch", ARCHS)
def test_a_loaded_sae_has_the_numbers_of_its_evaluation(sweep, held_out, arch):
    sae = saesweep.load(sweep / "tiny" / "mlp.0" / arch / "4")
    lm = saesweep.language_model(sae)
    x = harvest(lm, [sae.point], held_out.tokens)[sae.point]
    x = x[sae.statistics.ordinary(x)].float()
    f = sae.encode(x)
    error, variance = (x - sae.decode(f)).square().sum(), (x - x.mean(0)).square().sum()
    assert float((f > 0).sum(1).double().mean()) == pytest.approx(sae.metrics["l0"], rel=1e-3)
    assert float(error / variance) == pytest.approx(sae.metrics["fvu"], rel=1e-4)
    assert sae.config["arch"]["name"] == arch and sae.config["sparsity"] == 4


@pytest.mark.parametrize("arch", ["jumprelu", "topk"])
def test_splice_gives_the_loss_of_the_evaluation(sweep, held_out, arch):
    sae = saesweep.load(sweep / "tiny" / "mlp.0" / arch / "4")
    lm = saesweep.language_model(sae)
    tokens = held_out.tokens[: evaluation.enough(held_out, 256)]
    ordinary = evaluation.trainable(tokens, lm.tokenizer)
    ce = CrossEntropy()
    with saesweep.splice(lm, sae):
        ce.add(lm.module(input_ids=tokens.clamp(min=0)).logits, tokens, ordinary)
    assert ce.result() == pytest.approx(sae.metrics["ce_sae"], rel=1e-5) and ce.result() != sae.metrics["ce_clean"]


def test_outside_of_splice_the_model_is_as_it_was_and_latents_can_be_changed_inside(sweep, held_out):
    sae = saesweep.load(sweep / "tiny" / "mlp.0" / "topk" / "4")
    lm = saesweep.language_model(sae)
    tokens = held_out.tokens[:2].clamp(min=0)

    def logits():
        return lm.module(input_ids=tokens).logits

    before = logits()
    with saesweep.splice(lm, sae):
        with_it = logits()
    with saesweep.splice(lm.module, sae, change=lambda f: f):
        unchanged = logits()
    with saesweep.splice(lm, sae, change=torch.zeros_like):
        without_latents = logits()
    assert torch.equal(logits(), before) and torch.equal(with_it, unchanged)
    assert not torch.equal(with_it, before) and not torch.equal(with_it, without_latents)


def test_results_are_the_rows_of_the_csv_and_their_folders_load(sweep, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    df, csv = saesweep.results("default"), pd.read_csv(sweep / "pareto.csv")
    pd.testing.assert_frame_equal(df.drop(columns="folder"), csv.drop(columns="path"), check_dtype=False)
    assert saesweep.load(df["folder"][0]).folder == sweep / csv["path"][0]


def test_a_folder_without_an_sae_is_refused_with_where_there_are_some(sweep, tmp_path):
    with pytest.raises(UsageError, match=r"holds no finished SAE; there are 5 below it, such as .*/4"):
        saesweep.load(sweep)
    with pytest.raises(UsageError, match="holds no finished SAE: give a job's folder"):
        saesweep.load(tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        saesweep.results(tmp_path / "no")


def test_the_example_of_the_documentation_runs(sweep, monkeypatch, capsys):
    monkeypatch.chdir(sweep.parents[1])
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL)
    exec(code, {})
    printed = capsys.readouterr().out
    assert "model.layers.0.post_feedforward_layernorm" in printed and printed.count("tensor(") == 4
