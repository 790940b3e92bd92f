"""Finished sweeps in a notebook: loaded SAEs and models reproduce the evaluation."""

import re
from dataclasses import replace
from pathlib import Path

import model_folders
import pandas as pd
import pytest
import torch
from model_folders import LLAMA, TOKENS, llama
from small import ARCHS, RESOURCES, job

import saesweep
from saesweep.data.harvest import harvest
from saesweep.data.held_out import EVALUATION
from saesweep.data.scored import scored
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import CrossEntropy
from saesweep.evaluation.splicing import Batch
from saesweep.evaluation.subject import Subject
from saesweep.lm import models
from saesweep.lm.hooks import edit
from saesweep.storage import checkpoints
from saesweep.sweep.inputs import ReadText
from saesweep.training.build import build
from saesweep.training.loaded import as_loaded

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def held_out(reference_sweep):
    config = saesweep.load(next(reference_sweep.glob("*/*/topk/*"))).config
    return RESOURCES.held_out(config, EVALUATION, config["evaluation"]["tokens"])


@pytest.mark.parametrize("arch", ARCHS)
def test_a_loaded_sae_reproduces_the_metrics_of_its_evaluation(reference_sweep, held_out, arch):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / arch / "4")
    lm = saesweep.language_model(sae)
    x = harvest(lm, [sae.point], held_out.tokens)[sae.point]
    x = x[sae.statistics.ordinary(x)].float()
    f = sae.encode(x)
    error, variance = (x - sae.decode(f)).square().sum(), (x - x.mean(0)).square().sum()
    assert float((f > 0).sum(1).double().mean()) == pytest.approx(sae.metrics["l0"], rel=1e-3)
    assert float(error / variance) == pytest.approx(sae.metrics["fvu"], rel=1e-4)
    assert sae.config["arch"]["name"] == arch and sae.config["sparsity"] == 4


@pytest.mark.parametrize("arch", ["jumprelu", "topk"])
def test_splice_reproduces_the_loss_of_the_evaluation(reference_sweep, held_out, arch):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / arch / "4")
    lm = saesweep.language_model(sae)
    ce = CrossEntropy()
    with saesweep.splice(lm, sae):
        for part in scored(held_out, lm.tokenizer, sae.config).parts(256):
            Batch.of(*part, lm).score(lm, ce)
    assert ce.result() == pytest.approx(sae.metrics["ce_sae"], rel=1e-5) and ce.result() != sae.metrics["ce_clean"]


def test_splice_can_change_latents_and_restores_the_model(reference_sweep, held_out):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / "topk" / "4")
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


def test_results_has_the_rows_of_the_csv_and_folders_that_load(reference_sweep, monkeypatch):
    monkeypatch.chdir(reference_sweep.parent)
    df, csv = saesweep.results("default"), pd.read_csv(reference_sweep / "pareto.csv")
    pd.testing.assert_frame_equal(df.drop(columns="folder"), csv.drop(columns="path"), check_dtype=False)
    assert saesweep.load(df["folder"][0]).folder == reference_sweep / csv["path"][0]


def test_a_folder_without_an_sae_is_refused_with_examples_of_folders_below_it(reference_sweep, tmp_path):
    with pytest.raises(UsageError, match=r"holds no finished SAE; there are 5 below it, such as .*/4"):
        saesweep.load(reference_sweep)
    with pytest.raises(UsageError, match="holds no finished SAE: give a job's folder"):
        saesweep.load(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        saesweep.results(tmp_path / "no")


def test_the_example_of_the_documentation_runs(reference_sweep, monkeypatch, capsys):
    monkeypatch.chdir(reference_sweep.parents[1])
    names = {}
    page, _, _ = (ROOT / "docs" / "notebook.md").read_text().partition("## What the latents mean")  # test_study_notebook.py
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    printed = capsys.readouterr().out
    assert "model.layers.0.post_feedforward_layernorm" in printed and printed.count("tensor(") == 4 + 3
    assert names["attribution"].shape == (96,) and names["attribution"].abs().sum() > 0


@pytest.fixture
def sae_and_folder(tmp_path):
    """An SAE of a model in a local folder, and that folder."""
    model = llama(model_folders.write(tmp_path / "model", "llama", **LLAMA))
    content = models.weights_identity(model)
    checkpoints.write_origin(tmp_path / "sae", {"model": model | {"content": content}})
    sae = as_loaded(build(job(None, "arch=topk"), d_in=4))
    sae.config, sae.folder = {"model": model}, tmp_path / "sae"
    return sae, tmp_path / "model"


@pytest.mark.parametrize(("part", "file"), [
    ("weights", "model.safetensors"), ("config", "config.json"), ("tokenizer", "tokenizer.json"),
])
def test_a_model_that_changed_since_the_training_is_refused_with_the_changed_part(sae_and_folder, part, file):
    sae, folder = sae_and_folder
    assert saesweep.language_model(sae).tokenizer.vocab_size == TOKENS
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if part == "weights" else content + b" ")
    with pytest.raises(UsageError, match=rf"model\.source\.hub={folder}: {part} changed since .*sae.*give the folder back"):
        saesweep.language_model(sae)


@pytest.mark.parametrize("written", [None, "{", "[]", "{}"])
def test_without_a_readable_origin_the_model_loads_with_a_warning(sae_and_folder, written, caplog):
    sae, _ = sae_and_folder
    (sae.folder / checkpoints.ORIGIN).unlink()
    if written is not None:
        (sae.folder / checkpoints.ORIGIN).write_text(written)
    saesweep.language_model(sae)
    assert "whether model=small has changed since is not known" in caplog.text


def test_another_commit_of_the_model_is_a_warning(sae_and_folder, caplog, monkeypatch):
    sae, _ = sae_and_folder
    checkpoints.write_origin(sae.folder, {"model": {"content": {"commit": "abc"}}})
    monkeypatch.setattr(models, "weights_identity", lambda model: {"commit": "def"})
    saesweep.language_model(sae)
    assert "trained on commit abc, now it is def" in caplog.text


def test_a_missing_folder_of_a_model_is_refused(sae_and_folder):
    sae, folder = sae_and_folder
    folder.rename(folder.with_name("moved"))
    with pytest.raises(UsageError, match="there is no such folder"):
        saesweep.language_model(sae)


# Gradients


def slope(sae):
    """The derivative of an active latent with respect to its pre-activation."""
    return sae.r_mag.exp() if hasattr(sae, "r_mag") else torch.ones(sae.d_sae)


@pytest.mark.parametrize("arch", sorted(path.stem for path in (ROOT / "conf" / "arch").glob("*.yaml")))
def test_encode_and_decode_have_the_gradients_of_the_dense_formulas(arch):
    torch.manual_seed(0)
    sae = build(job(None, f"arch={arch}"), d_in=16).requires_grad_(False)
    x, g = torch.randn(20, 16, requires_grad=True), torch.randn(20, sae.d_sae)
    f = sae.encode(x)
    active = f > 0
    assert 0 < active.sum() < active.numel()
    (found,) = torch.autograd.grad((f * g).sum(), x)
    torch.testing.assert_close(found, (g * active * slope(sae)) @ sae.W_enc.T)
    f = f.detach().requires_grad_()
    (found,) = torch.autograd.grad((sae.decode(f) * g[:, :16]).sum(), f)
    torch.testing.assert_close(found, g[:, :16] @ sae.W_dec.T)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_gradient_through_splice_equals_that_of_a_dense_computation(reference_sweep, held_out, arch):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / arch / "4")
    lm = saesweep.language_model(sae)
    tokens = held_out.tokens[:3].clamp(min=0)
    embeds = lm.module.get_input_embeddings()(tokens).requires_grad_()
    sae.statistics = replace(sae.statistics, largest=1.2 * sae.statistics.quantiles[1])  # so that there are sinks
    inside = {}

    def loss():
        logits = lm.module(inputs_embeds=embeds).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def keep(f):
        inside["f"] = f
        return f

    def dense(x):
        ordinary = (x - sae.statistics.centre).norm(dim=-1, keepdim=True) <= sae.statistics.largest
        f = sae.encode(x.detach())
        pi = (x - sae.b_dec) @ sae.W_enc * (f > 0) * slope(sae)  # f without its constant terms
        inside["dense"], inside["ordinary"] = f + pi - pi.detach(), ordinary
        return torch.where(ordinary, inside["dense"] @ sae.W_dec + sae.b_dec, x)

    with saesweep.splice(lm, sae, change=keep):
        found = loss()
    of_embeds, of_latents = torch.autograd.grad(found, [embeds, inside["f"]])
    with edit(lm.module, sae.point, dense):
        expected = loss()
    expected_embeds, expected_latents = torch.autograd.grad(expected, [embeds, inside["dense"]])
    ordinary = inside["ordinary"].squeeze(-1)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and 0 < ordinary.sum() < ordinary.numel()
    torch.testing.assert_close(of_embeds, expected_embeds, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(of_latents, expected_latents[ordinary], rtol=1e-4, atol=1e-7)
    assert of_embeds.abs().max() > 0 and of_latents.abs().max() > 0


def test_the_attribution_of_latents_predicts_the_effect_of_a_small_change(reference_sweep, held_out):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / "relu" / "4")
    lm, tokens, kept = saesweep.language_model(sae), held_out.tokens[:3].clamp(min=0), []
    lm.module.double()

    def loss(change):
        with saesweep.splice(lm, sae, change):
            return lm.module(input_ids=tokens, labels=tokens).loss

    def keep(f):
        kept.append(f.detach().requires_grad_())
        return kept[-1]

    loss(keep).backward()
    step = 1e-2 * kept[0].grad / kept[0].grad.norm()
    assert len(step) == int((tokens > 2).sum())  # special tokens are not replaced
    difference = float(loss(lambda f: f + step) - loss(lambda f: f - step))
    assert difference == pytest.approx(2e-2 * float(kept[0].grad.norm()), rel=1e-2)


def test_the_weights_of_an_sae_get_gradients_with_requires_grad(reference_sweep, held_out):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / "topk" / "4")
    lm, tokens = saesweep.language_model(sae), held_out.tokens[:1].clamp(min=0)
    with saesweep.splice(lm, sae):
        assert not lm.module(input_ids=tokens).logits.requires_grad
    sae.requires_grad_(True)
    with saesweep.splice(lm, sae):
        lm.module(input_ids=tokens, labels=tokens).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in sae.parameters())
    assert all(parameter.grad is None for parameter in lm.module.parameters())


def test_the_evaluation_runs_without_gradients(reference_sweep):
    sae = saesweep.load(reference_sweep / "tiny" / "mlp.0" / "topk" / "4").requires_grad_(True)
    enabled = []
    sae.register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    ReadText(sae.config, [sae.point], RESOURCES).evaluate([Subject(sae, sae.point, sae.statistics)])
    assert enabled and not any(enabled)
