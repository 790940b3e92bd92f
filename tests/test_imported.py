"""SAEs that others have trained: every format is read and folded as its own library computes it, and measured like ours."""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from small import RESOURCES, write_text
from studied import swept

import saesweep
from saesweep.config.settings import own_settings
from saesweep.errors import UsageError
from saesweep.imported import __main__ as command
from saesweep.imported import fold, run
from saesweep.imported.fold import Original, folded
from saesweep.imported.names import require_same
from saesweep.imported.readers import READERS
from saesweep.imported.run import Options, _built
from saesweep.imported.source import locate
from saesweep.lm.hooks import HookPoint
from saesweep.report import pareto
from saesweep.storage import files, sweep_table

D, F, K = 6, 20, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def numbers(norms: bool = True) -> dict:
    """W_enc [D, F], W_dec [F, D] with rows of norms other than one unless said, biases, thresholds that are 0 or more."""
    W_dec = drawn(F, D, seed=1)
    if not norms:
        W_dec /= W_dec.norm(dim=1, keepdim=True)
    return {"W_enc": drawn(D, F, seed=2), "W_dec": W_dec, "b_enc": drawn(F, seed=3, scale=0.3),
            "b_dec": drawn(D, seed=4, scale=0.5), "threshold": drawn(F, seed=5, scale=0.5).abs()}


X = drawn(300, D, seed=9) + 0.7


def read(folder: Path, scale: float | None = None):
    """What the files say, and our SAE."""
    source = locate(str(folder), list(READERS))
    pattern = next(name for name in READERS if Path(source.weights).match(name))
    about, original = READERS[pattern](source, scale)
    fold.require_shapes(original, str(folder))
    return about, _built(original)


def require_equal(sae, f, x_hat, units: torch.Tensor | float | None = None) -> None:
    """The same latents are active and the reconstruction is the same. units: f in our units over theirs; of each latent, or
    None for the norm of its row, as ours have norm one."""
    ours = sae.encode(X)
    assert 0.02 < float((f > 0).float().mean()) < 0.98
    assert torch.equal(ours > 0, f > 0)
    torch.testing.assert_close(ours, f * units, **CLOSE)
    torch.testing.assert_close(sae.decode(ours), x_hat, **CLOSE)
    listed = sae.list_active(X)
    torch.testing.assert_close(sae.decode(listed.dense() if hasattr(listed, "dense") else ours), x_hat, **CLOSE)


# SAELens

def saelens(folder: Path, tensors: dict, **cfg) -> Path:
    metadata = {"model_name": "gemma-3-270m", "hook_name": "blocks.1.hook_resid_post", "sae_lens_version": "6.54.12"}
    folder.mkdir(exist_ok=True, parents=True)
    said = {"architecture": "standard", "d_in": D, "d_sae": F, "apply_b_dec_to_input": True, "normalize_activations": "none",
            "metadata": metadata} | cfg
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in said.items() if value is not ...}))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def of(tensors: dict, *names: str) -> dict:
    return {name: tensors[name] for name in ("W_enc", "W_dec", "b_dec", *names)}


@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_saelens_relu_and_jumprelu(architecture, pre_bias, tmp_path):
    n = numbers()
    names = ["b_enc", "threshold"] if architecture == "jumprelu" else ["b_enc"]
    about, sae = read(saelens(tmp_path, of(n, *names), architecture=architecture, apply_b_dec_to_input=pre_bias))
    pi = (X - n["b_dec"] if pre_bias else X) @ n["W_enc"] + n["b_enc"]
    f = torch.relu(pi) * (pi > (n["threshold"] if architecture == "jumprelu" else 0))
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], n["W_dec"].norm(dim=1))
    assert about == ("SAELens", f"saelens_{architecture}", "gemma-3-270m", "blocks.1.hook_resid_post", None)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(F))


def test_saelens_gated_is_a_jumprelu_exactly(tmp_path):
    n = numbers()
    more = {"b_gate": drawn(F, seed=6, scale=0.5), "r_mag": drawn(F, seed=7, scale=0.5), "b_mag": drawn(F, seed=8, scale=0.5)}
    _, sae = read(saelens(tmp_path, of(n) | more, architecture="gated"))
    pi = (X - n["b_dec"]) @ n["W_enc"]
    f = (pi + more["b_gate"] > 0) * torch.relu(pi * more["r_mag"].exp() + more["b_mag"])
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], n["W_dec"].norm(dim=1))
    assert bool((sae.threshold > 0).any()) and bool((sae.threshold == 0).any())


@pytest.mark.parametrize("rescaled", [True, False])
def test_saelens_topk_keeps_its_norms_unless_it_ranks_by_them(rescaled, tmp_path):
    n = numbers()
    about, sae = read(saelens(tmp_path, of(n, "b_enc"), architecture="topk", k=K, rescale_acts_by_decoder_norm=rescaled))
    pi = (X - n["b_dec"]) @ n["W_enc"] + n["b_enc"]
    norms = n["W_dec"].norm(dim=1)
    pi = pi * norms if rescaled else pi
    values, columns = pi.topk(K)
    f = torch.zeros_like(pi).scatter(1, columns, values.relu())
    x_hat = (f / norms if rescaled else f) @ n["W_dec"] + n["b_dec"]
    require_equal(sae, f, x_hat, 1.0)
    assert sae.sparsity == K and about.curve == "saelens_topk"
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(F) if rescaled else norms)


def test_equal_norms_of_a_topk_are_folded(tmp_path):
    n = numbers(norms=False)
    n["W_dec"] = 3 * n["W_dec"]
    _, sae = read(saelens(tmp_path, of(n, "b_enc"), architecture="topk", k=K))
    torch.testing.assert_close(sae.W_dec, n["W_dec"] / 3)
    torch.testing.assert_close(sae.b_enc, n["b_enc"] * 3)


def test_a_file_before_version_6_is_flat(tmp_path):
    n = numbers()
    flat = {"metadata": ..., "architecture": ..., "model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre",
            "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": False,
            "training_tokens": 300}
    about, sae = read(saelens(tmp_path, of(n, "b_enc"), **flat))
    assert about == ("SAELens", "saelens_topk", "gpt2-small", "blocks.8.hook_resid_pre", 300) and sae.sparsity == K


@pytest.mark.parametrize("where", ["option", "file"])
def test_one_factor_of_the_activations_is_folded(where, tmp_path):
    n, a = numbers(), 0.25
    saelens(tmp_path, of(n, "b_enc", "threshold"), architecture="jumprelu", normalize_activations="expected_average_only_in")
    if where == "file":
        (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": a}))
    _, sae = read(tmp_path, a if where == "option" else None)
    pi = (a * X - n["b_dec"]) @ n["W_enc"] + n["b_enc"]
    f = torch.relu(pi) * (pi > n["threshold"])
    require_equal(sae, f, (f @ n["W_dec"] + n["b_dec"]) / a, n["W_dec"].norm(dim=1) / a)


def test_the_training_tokens_of_saelens_are_read(tmp_path):
    saelens(tmp_path, of(numbers(), "b_enc"))
    (tmp_path / "runner_cfg.json").write_text(json.dumps({"training_tokens": 4_000_000}))
    assert read(tmp_path)[0].tokens == 4_000_000


# Gemma Scope

def gemma_scope(folder: Path, n: dict, second: bool, **more) -> Path:
    folder.mkdir(parents=True)
    if not second:
        np.savez(folder / "params.npz", **{key: value.numpy() for key, value in (n | more).items()})
        return folder
    lower = {key.lower() if key.startswith("W") else key: value.contiguous() for key, value in (n | more).items()}
    save_file(lower, folder / "params.safetensors")
    return folder


GS1 = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
GS2 = "google/gemma-scope-2-270m-pt/resid_post/layer_9_width_16k_l0_small"


@pytest.mark.parametrize("second", [False, True])
def test_gemma_scope_subtracts_no_bias_from_its_input(second, tmp_path):
    n = numbers()
    about, sae = read(gemma_scope(tmp_path / (GS2 if second else GS1), n, second))
    pi = X @ n["W_enc"] + n["b_enc"]
    f = torch.relu(pi) * (pi > n["threshold"])
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], n["W_dec"].norm(dim=1))
    assert about[2:] == (("google/gemma-3-270m-pt", "blocks.9.hook_resid_post", None) if second else
                         ("google/gemma-2-2b", "blocks.12.hook_resid_post", None))


def test_gemma_scope_2_says_its_hook_point_in_its_config(tmp_path):
    folder = gemma_scope(tmp_path / "x", numbers(), second=True)
    said = {"architecture": "jump_relu", "model_name": "gemma-v3-270m", "hf_hook_point_in": "model.layers.9.output"}
    (folder / "config.json").write_text(json.dumps(said))
    assert read(folder)[0][2:] == ("gemma-3-270m", "model.layers.9.output", None)


# dictionary_learning

def dictionary(folder: Path, kind: str, tensors: dict, buffer: dict | None = None, **trainer) -> Path:
    folder.mkdir(exist_ok=True)
    said = {"trainer": {"dict_class": kind, "lm_name": "EleutherAI/pythia-70m-deduped", "layer": 3,
                        "submodule_name": "resid_post_layer_3"} | trainer, "buffer": buffer or {}}
    (folder / "config.json").write_text(json.dumps(said))
    torch.save(tensors, folder / "ae.pt")
    return folder


def linear(n: dict) -> dict:
    return {"encoder.weight": n["W_enc"].T.contiguous(), "decoder.weight": n["W_dec"].T.contiguous()}


DICTIONARIES = ["AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE",
                "MatryoshkaBatchTopKSAE"]


def theirs(kind: str, n: dict) -> tuple[dict, torch.Tensor, torch.Tensor | float]:
    """The tensors of a file, their latents of X, and f in our units over theirs."""
    gate, r, mag = (drawn(F, seed=seed, scale=0.5) for seed in (6, 7, 8))
    biased, norms = (X - n["b_dec"]) @ n["W_enc"], n["W_dec"].norm(dim=1)
    batch = {"k": torch.tensor(K), "threshold": torch.tensor(0.4)}
    if kind == "AutoEncoder":
        return linear(n) | {"encoder.bias": n["b_enc"], "bias": n["b_dec"]}, torch.relu(biased + n["b_enc"]), norms
    if kind == "AutoEncoderNew":
        tensors = linear(n) | {"encoder.bias": n["b_enc"], "decoder.bias": n["b_dec"]}
        return tensors, torch.relu(X @ n["W_enc"] + n["b_enc"]), norms
    if kind == "GatedAutoEncoder":
        tensors = linear(n) | {"decoder_bias": n["b_dec"], "r_mag": r, "gate_bias": gate, "mag_bias": mag}
        return tensors, (biased + gate > 0) * torch.relu(r.exp() * biased + mag), norms
    if kind == "JumpReluAutoEncoder":
        pi = X @ n["W_enc"] + n["b_enc"]
        return dict(n), torch.relu(pi * (pi > n["threshold"])), norms
    pi = torch.relu(biased + n["b_enc"])
    if kind == "AutoEncoderTopK":
        values, columns = pi.topk(K)
        tensors = linear(n) | {"encoder.bias": n["b_enc"], "b_dec": n["b_dec"]} | batch
        return tensors, torch.zeros_like(pi).scatter(1, columns, values), 1.0
    f = pi * (pi > 0.4)
    if kind == "BatchTopKSAE":
        return linear(n) | {"encoder.bias": n["b_enc"], "b_dec": n["b_dec"]} | batch, f, norms
    del n["threshold"]
    return n | batch | {"group_sizes": torch.tensor([5, F - 5])}, f, norms


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionary_learning_by_the_class_that_its_config_names(kind, tmp_path):
    n = numbers()
    tensors, f, units = theirs(kind, n)
    about, sae = read(dictionary(tmp_path, kind, tensors, {"out_batch_size": 2048, "ctx_len": 128}, k=K, steps=1000))
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], units)
    assert about[2:] == ("EleutherAI/pythia-70m-deduped", "blocks.3.hook_resid_post", 2_048_000)


# sparsify, Llama Scope, Qwen Scope

def topk_of(pi: torch.Tensor) -> torch.Tensor:
    values, columns = pi.topk(K)
    return torch.zeros_like(pi).scatter(1, columns, values.relu())


def sparsify(folder: Path, n: dict, tensors: dict | None = None, **cfg) -> Path:
    folder.mkdir(parents=True)
    said = {"activation": "topk", "expansion_factor": 32, "num_latents": 0, "k": K, "normalize_decoder": True,
            "transcode": False, "skip_connection": False, "d_in": D} | cfg
    (folder / "cfg.json").write_text(json.dumps(said))
    (folder.parent / "config.json").write_text(json.dumps({"model": "HuggingFaceTB/SmolLM2-135M"}))
    save_file({"encoder.weight": n["W_enc"].T.contiguous(), "encoder.bias": n["b_enc"], "W_dec": n["W_dec"],
               "b_dec": n["b_dec"]} | (tensors or {}), folder / "sae.safetensors")
    return folder


def test_sparsify(tmp_path):
    n = numbers()
    about, sae = read(sparsify(tmp_path / "run/layers.5", n))
    f = topk_of((X - n["b_dec"]) @ n["W_enc"] + n["b_enc"])
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], 1.0)
    assert about == ("sparsify", "sparsify_topk", "HuggingFaceTB/SmolLM2-135M", "layers.5.output", None)


def llama_scope(folder: Path, n: dict, **said) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    said = {"d_model": D, "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": 0.3, "top_k": 50,
            "hook_point_in": "blocks.8.hook_resid_post", "hook_point_out": "blocks.8.hook_resid_post",
            "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 6.25, "out": 6.25},
            "sparsity_include_decoder_norm": True, "apply_decoder_bias_to_pre_encoder": False} | said
    (folder / "hyperparams.json").write_text(json.dumps({key: value for key, value in said.items() if value is not ...}))
    tensors = linear(n) | {"encoder.bias": n["b_enc"], "decoder.bias": n["b_dec"]}
    tensors = {key: value.bfloat16() for key, value in tensors.items()}
    save_file(tensors, folder / "checkpoints/final.safetensors")
    return folder


@pytest.mark.parametrize("by_norm", [True, False])
def test_llama_scope_has_one_threshold_in_raw_units(by_norm, tmp_path):
    n = {key: value.bfloat16().float() for key, value in numbers().items()}
    folder = llama_scope(tmp_path / "Llama3_1-8B-Base-L8R-8x", n, sparsity_include_decoder_norm=by_norm)
    about, sae = read(folder)
    a, norms = D**0.5 / 6.25, n["W_dec"].norm(dim=1)
    pi = (a * X @ n["W_enc"] + n["b_enc"]) / a  # in raw units
    f = torch.relu(pi) * ((pi * norms if by_norm else pi) > 0.3)
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"] / a, norms)
    assert about[2:4] == ("meta-llama/Llama-3.1-8B", "blocks.8.hook_resid_post")
    if by_norm:
        torch.testing.assert_close(sae.threshold, torch.full((F,), 0.3))
    assert read(folder / "checkpoints/final.safetensors")[0] == about


def qwen_scope(folder: Path, n: dict) -> Path:
    folder.mkdir(parents=True)
    torch.save({"W_enc": n["W_enc"].T.contiguous(), "W_dec": n["W_dec"].T.contiguous(), "b_enc": n["b_enc"],
                "b_dec": n["b_dec"]}, folder / "layer4.sae.pt")
    return folder


def test_qwen_scope_has_its_k_in_the_name_of_its_repository(tmp_path):
    n = numbers()
    about, sae = read(qwen_scope(tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3", n) / "layer4.sae.pt")
    f = topk_of(X @ n["W_enc"] + n["b_enc"])
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], 1.0)
    assert about == ("Qwen Scope", "qwen_scope", "Qwen/Qwen3-1.7B-Base", "blocks.4.hook_resid_post", None)
