"""SAEs that others have trained: every format is read and folded as its own library computes it, and measured like ours."""
import json
import re
from pathlib import Path

import pytest
import torch
from imported_files import (
    D,
    F,
    K,
    X,
    dictionary,
    drawn,
    gemma_scope,
    linear,
    llama_scope,
    numbers,
    of,
    qwen_scope,
    saelens,
    sparsify,
)

from saesweep.errors import UsageError
from saesweep.imported import fold
from saesweep.imported.fold import Original, folded
from saesweep.imported.names import require_same
from saesweep.imported.readers import READERS
from saesweep.imported.run import _built
from saesweep.imported.source import locate
from saesweep.lm.hooks import HookPoint

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


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
    torch.testing.assert_close(sae.list_active(X).dense(), ours, **CLOSE)


# SAELens

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


def test_sparsify(tmp_path):
    n = numbers()
    about, sae = read(sparsify(tmp_path / "run/layers.5", n))
    f = topk_of((X - n["b_dec"]) @ n["W_enc"] + n["b_enc"])
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], 1.0)
    assert about == ("sparsify", "sparsify_topk", "HuggingFaceTB/SmolLM2-135M", "layers.5.output", None)


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


def test_qwen_scope_has_its_k_in_the_name_of_its_repository(tmp_path):
    n = numbers()
    about, sae = read(qwen_scope(tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3", n) / "layer4.sae.pt")
    f = topk_of(X @ n["W_enc"] + n["b_enc"])
    require_equal(sae, f, f @ n["W_dec"] + n["b_dec"], 1.0)
    assert about == ("Qwen Scope", "qwen_scope", "Qwen/Qwen3-1.7B-Base", "blocks.4.hook_resid_post", None)


# The libraries themselves

def peer(name: str):
    return pytest.importorskip(name, reason=f"pip install {name.replace('_', '-')} to compare with it")


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_saelens_itself_computes_the_same(architecture, tmp_path):
    sae_lens = peer("sae_lens")
    n = numbers()
    more = {"b_gate": drawn(F, seed=6, scale=0.5), "r_mag": drawn(F, seed=7, scale=0.5), "b_mag": drawn(F, seed=8, scale=0.5)}
    tensors = of(n) | more if architecture == "gated" else of(n, "b_enc", *["threshold"] * (architecture == "jumprelu"))
    cfg = {"k": K, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {"apply_b_dec_to_input": False}
    saelens(tmp_path, tensors, architecture=architecture, dtype="float32", device="cpu", reshape_activations="none", **cfg)
    made = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    with torch.no_grad():
        f = made.encode(X)
        require_equal(read(tmp_path)[1], f, made.decode(f), 1.0 if architecture == "topk" else n["W_dec"].norm(dim=1))


PUBLISHED = {  # by SAELens' loader of such repositories: where it finds what, and our file there
    "gemma_2": (GS1, lambda to, n: gemma_scope(to, n, second=False)),
    "gemma_3": (GS2, lambda to, n: gemma_scope(to, n, second=True)),
    "llama_scope": ("fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L8R-8x",
                    lambda to, n: llama_scope(to, n, sparsity_include_decoder_norm=False)),
    "qwen_scope": ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_3/layer4.sae.pt", lambda to, n: qwen_scope(to.parent, n)),
}


@pytest.mark.parametrize("layout", PUBLISHED)
def test_saelens_reads_the_layout_of_a_published_repository_as_the_same(layout, tmp_path, monkeypatch):
    loaders, sae_lens = peer("sae_lens.loading.pretrained_sae_loaders"), peer("sae_lens")
    where, write = PUBLISHED[layout]
    owner, name, folder = where.split("/", 2)
    n = {key: value.bfloat16().float() for key, value in numbers().items()}  # Llama Scope's dtype
    write(tmp_path / where, n)
    if layout == "gemma_3":
        said = {"architecture": "jump_relu", "model_name": "gemma-v3-270m"}
        (tmp_path / where / "config.json").write_text(json.dumps(said))
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *_: {"w_enc": [D, F], "w_dec": [F, D]})
    monkeypatch.setattr(loaders, "hf_hub_download", lambda repo_id, filename, subfolder="", **_:
                        tmp_path / repo_id / subfolder / filename)

    def of_our_size(cfg_overrides, **more):
        cfg = (cfg_overrides or {}) | {"d_in": D, "d_sae": F, "dtype": "float32"}
        return loaders.NAMED_PRETRAINED_SAE_LOADERS[layout](cfg_overrides=cfg, **more)

    made = sae_lens.SAE.from_pretrained(f"{owner}/{name}", folder, device="cpu", converter=of_our_size)
    if layout == "llama_scope":
        made.fold_activation_norm_scaling_factor(D**0.5 / 6.25)  # which SAELens has in a table of what is published
    with torch.no_grad():
        f = made.encode(X)
        units = 1.0 if layout == "qwen_scope" else made.W_dec.norm(dim=1)
        require_equal(read(tmp_path / where)[1], f, made.decode(f), units)


def test_sparsify_itself_computes_the_same(tmp_path):
    sparse = peer("sparsify")
    made = sparse.SparseCoder(D, sparse.SparseCoderConfig(num_latents=F, k=K))
    with torch.no_grad():
        for name, value in (("b_dec", drawn(D, seed=4)), ("W_dec", drawn(F, D, seed=1))):
            getattr(made, name).copy_(value)
        made.encoder.bias.copy_(drawn(F, seed=3))
        made.save_to_disk(tmp_path / "run/layers.5")
        values, columns, _ = made.encode(X)
        f = torch.zeros(len(X), F).scatter(1, columns, values)
        require_equal(read(tmp_path / "run/layers.5")[1], f, f @ made.W_dec + made.b_dec, 1.0)


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionary_learning_itself_computes_the_same(kind, tmp_path):
    library, n = peer("dictionary_learning.dictionary"), numbers()
    trainers = {"AutoEncoderTopK": "top_k", "BatchTopKSAE": "batch_top_k", "MatryoshkaBatchTopKSAE": "matryoshka_batch_top_k"}
    module = peer(f"dictionary_learning.trainers.{trainers[kind]}") if kind in trainers else library
    more = {"k": K} if kind in trainers else {}
    more |= {"group_sizes": [5, F - 5]} if kind.startswith("Matryoshka") else {}
    made = getattr(module, kind)(D, F, **more)
    tensors, _, units = theirs(kind, n)
    made.load_state_dict(tensors)
    with torch.no_grad():
        f = made.encode(X)
        require_equal(read(dictionary(tmp_path, kind, made.state_dict()))[1], f, made.decode(f), units)


# What is refused

def refused(folder: Path, scale: float | None = None) -> str:
    with pytest.raises(UsageError) as error:
        read(folder, scale)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("cfg, line", [
    ({"normalize_activations": "layer_norm"}, "cfg.json: normalize_activations=layer_norm: each token is normalised by itself"),
    ({"normalize_activations": "constant_norm_rescale"}, "normalize_activations=constant_norm_rescale: each token"),
    ({"normalize_activations": "expected_average_only_in"}, "by a factor that none of its files has; give it as --scale"),
    ({"normalize_activations": "covariance_whitening"}, "its whitening is not in its weights yet"),
    ({"architecture": "jumprelu_skip_transcoder"}, "architecture=jumprelu_skip_transcoder: it is a transcoder"),
    ({"architecture": "abstopk"}, "architecture=abstopk: only standard, topk, jumprelu, gated can be measured"),
    ({"architecture": "batchtopk"}, "a finished training of BatchTopK or Matryoshka is saved as jumprelu"),
    ({"activation_fn_str": "tanh-relu"}, "activation_fn_str=tanh-relu: only relu and topk can be measured"),
    ({"architecture": "topk"}, "cfg.json: k=None: a TopK SAE needs its number of active latents"),
    ({"metadata": {"hook_head_index": 3}}, "hook_head_index=3: it reads one attention head"),
])
def test_a_file_of_saelens_that_cannot_be_measured_is_one_line(cfg, line, tmp_path):
    assert line in refused(saelens(tmp_path, of(numbers(), "b_enc"), **cfg))


def test_a_scaling_factor_is_refused_unless_it_is_one(tmp_path):
    n = numbers()
    read(saelens(tmp_path, of(n, "b_enc") | {"scaling_factor": torch.ones(F)}))
    line = refused(saelens(tmp_path, of(n, "b_enc") | {"scaling_factor": torch.full((F,), 1.5)}))
    assert "sae_weights.safetensors: scaling_factor=not 1" in line
    assert "scaling_factor=not 1" in refused(gemma_scope(tmp_path / "g", n, False, scaling_factor=torch.full((F,), 2.0)))


def test_tensors_that_lack_or_are_not_known_are_named(tmp_path):
    n = numbers()
    assert "has no b_enc, only W_dec, W_enc, b_dec" in refused(saelens(tmp_path, of(n)))
    more = saelens(tmp_path, of(n, "b_enc") | {"W_skip": torch.zeros(D, D)})
    assert "has W_skip too, and what that does is not known" in refused(more)
    del n["threshold"]
    assert "params.npz: has no threshold" in refused(gemma_scope(tmp_path / "g", n, False))


def test_shapes_that_do_not_fit_and_numbers_that_are_not_finite_are_refused(tmp_path):
    n = numbers()
    assert "W_dec has the shape [20, 5], and W_enc [6, 20] needs [20, 6]" in refused(
        saelens(tmp_path, of(n | {"W_dec": n["W_dec"][:, 1:]}, "b_enc")))
    n["b_enc"][3] = torch.nan
    assert "b_enc is not finite" in refused(saelens(tmp_path, of(n, "b_enc")))
    n = numbers()
    assert "k=21: must be from 1 to 20" in refused(saelens(tmp_path, of(n, "b_enc"), architecture="topk", k=21))


@pytest.mark.parametrize("place, second", [
    ("google/gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_8", False),
    ("google/gemma-scope-2-270m-pt/transcoder/layer_5_width_16k_l0_small", True),
    ("google/gemma-scope-2-270m-pt/clt/width_262k_l0_medium", True),
])
def test_transcoders_of_gemma_scope_are_refused(place, second, tmp_path):
    assert "it is a transcoder, which reads one tensor and writes another" in refused(
        gemma_scope(tmp_path / place, numbers(), second))


def test_what_else_gemma_scope_has_is_refused(tmp_path):
    n = numbers()
    assert "it reads the token embeddings" in refused(gemma_scope(tmp_path / "embedding/width_4k/average_l0_6", n, False))
    skip = gemma_scope(tmp_path / "skip", n, True, affine_skip_connection=torch.eye(D))
    assert "transcoder" in refused(skip)
    layers = gemma_scope(tmp_path / "layers", n | {"W_dec": torch.zeros(F, 3, D)}, True)
    assert "transcoder" in refused(layers)
    other = gemma_scope(tmp_path / "other", n, True)
    (other / "config.json").write_text(json.dumps({"architecture": "topk"}))
    assert "config.json: architecture=topk: only jump_relu" in refused(other)


def test_what_dictionary_learning_has_is_refused_where_it_cannot_be_used(tmp_path):
    n = numbers()
    batch = linear(n) | {"encoder.bias": n["b_enc"], "b_dec": n["b_dec"], "k": torch.tensor(K), "threshold": torch.tensor(-1.0)}
    assert "ae.pt: threshold=-1.0: it is not set before `threshold_start_step`" in refused(
        dictionary(tmp_path, "BatchTopKSAE", batch))
    assert "trainer.dict_class=IdentityDict: only AutoEncoder" in refused(dictionary(tmp_path, "IdentityDict", batch))
    both = dictionary(tmp_path, "BatchTopKSAE", batch, {"io": "in_and_out"})
    assert "buffer.io=in_and_out: it is a transcoder" in refused(both)
    running = {"step": 3, "ae": batch, "optimizer": {"state": {}}}
    assert "is the state of a training that has not ended" in refused(dictionary(tmp_path, "BatchTopKSAE", running))
    (tmp_path / "config.json").unlink()
    assert "config.json cannot be read" in refused(tmp_path)


class Code:
    def __reduce__(self):
        return (print, ("the code of the file was run",))


def test_no_code_of_a_pickle_is_run(tmp_path, capsys):
    folder = dictionary(tmp_path, "AutoEncoder", {})
    torch.save({"encoder.weight": Code()}, folder / "ae.pt")
    assert "ae.pt: cannot be read (ValueError: it holds objects whose code would have to be run" in refused(folder)
    import numpy as np

    (tmp_path / "g").mkdir()
    np.savez(tmp_path / "g/params.npz", W_enc=np.array([Code()], object))
    assert "params.npz: cannot be read (ValueError: Object arrays cannot be loaded" in refused(tmp_path / "g")
    assert "was run" not in capsys.readouterr().out


def test_a_damaged_file_is_one_line(tmp_path):
    folder = saelens(tmp_path, of(numbers(), "b_enc"))
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    assert "sae_weights.safetensors: cannot be read" in refused(folder)
    (folder / "cfg.json").write_text("[]")
    assert "cfg.json holds no JSON object" in refused(folder)


@pytest.mark.parametrize("cfg, line", [
    ({"transcode": True}, "cfg.json: transcode=true: it is a transcoder"),
    ({"skip_connection": True}, "cfg.json: skip_connection=true: it is a transcoder"),
    ({"activation": "groupmax"}, "activation=groupmax: it takes the largest latent of a group"),
    ({"signed": True}, "signed=true: its latents may be negative"),
])
def test_what_sparsify_has_is_refused_where_it_cannot_be_measured(cfg, line, tmp_path):
    assert line in refused(sparsify(tmp_path / "run/layers.5", numbers(), **cfg))


@pytest.mark.parametrize("said, line", [
    ({"act_fn": "topk"}, "hyperparams.json: act_fn=topk: only jumprelu"),
    ({"use_glu_encoder": True}, "use_glu_encoder=true: its encoder has a second matrix"),
    ({"norm_activation": "token-wise"}, "norm_activation=token-wise: each token is normalised by itself"),
    ({"dataset_average_activation_norm": {"in": 6.25}}, "the mean norms `in` and `out` are needed"),
    ({"hook_point_out": "blocks.8.hook_mlp_out"}, "hook_point_out=blocks.8.hook_mlp_out: it is a transcoder"),
])
def test_what_llama_scope_has_is_refused_where_it_cannot_be_measured(said, line, tmp_path):
    assert line in refused(llama_scope(tmp_path, numbers(), **said))


def test_qwen_scope_needs_the_name_of_its_repository(tmp_path):
    assert "its k stands only in the name of its repository" in refused(qwen_scope(tmp_path / "x", numbers()))


# Where the files are

def test_a_folder_without_an_sae_says_what_was_looked_for_or_where_there_are_some(tmp_path):
    assert "holds no SAE; looked for sae_weights.safetensors, params.npz" in refused(tmp_path)
    folder = gemma_scope(tmp_path / "a/b", numbers(), False)
    assert f"holds no SAE; there are 1 below it, such as {folder}/params.npz" in refused(tmp_path)
    saelens(folder, of(numbers(), "b_enc"))
    assert "holds 2 SAEs: params.npz, sae_weights.safetensors; give one of them" in refused(folder)
    assert read(folder / "params.npz")[0].format == "Gemma Scope"
    assert "there is no such file or folder" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("typed", ["nowhere", "./a/b", "~nobody/a", "a/../b"])
def test_what_is_neither_a_path_nor_a_repository_is_one_line(typed):
    with pytest.raises(UsageError, match=f"^{re.escape(typed)}: there is no such file or folder; give one, or owner"):
        locate(typed, list(READERS))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(folder: Path, monkeypatch, repository: str, path: str) -> Path:
    """The folder of a path in the cache of the hub, with one commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    root = folder / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(COMMIT)
    return root / "snapshots" / COMMIT / path


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_folder_of_the_hub_is_read_from_the_cache_of_this_machine(revision, tmp_path, monkeypatch):
    repository, path = GS2.split("/resid_post")[0], "resid_post" + GS2.partition("resid_post")[2]
    gemma_scope(cached(tmp_path, monkeypatch, repository, path), numbers(), True)
    source = locate(GS2 + revision, list(READERS))
    assert (source.repository, source.commit, source.place) == (repository, COMMIT, f"{GS2}/params.safetensors")
    about, _ = READERS["params.safetensors"](source, None)
    assert about.model == "google/gemma-3-270m-pt" and about.hook == "blocks.9.hook_resid_post"
    assert locate(f"{GS2}/params.safetensors{revision}", list(READERS))._replace(typed="") == source._replace(typed="")


def test_a_repository_that_is_not_on_this_machine_needs_the_network(tmp_path, monkeypatch):
    cached(tmp_path, monkeypatch, "someone/else", "x")
    line = "google/gemma-scope-2b-pt-res is not on this machine, and HF_HUB_OFFLINE forbids downloads"
    with pytest.raises(UsageError, match=f"^{GS1}: {line}"):
        locate(GS1, list(READERS))


# Names

JOB = {"model": {"name": "gemma3_270m", "hub_name": "google/gemma-3-270m", "source": {"package": "x"}},
       "site": {"name": "resid", "hook_name": "blocks.{layer}.hook_resid_post"}, "layer": 9}
POINT = HookPoint("model.layers.9", "output")


def named(model: str | None, hook: str | None, job: dict = JOB, any_name: bool = False) -> None:
    from saesweep.imported.about import About

    require_same(About("f", "c", model, hook, None), "theirs", job, POINT, any_name)


@pytest.mark.parametrize("model", ["google/gemma-3-270m", "gemma-3-270m", "google/gemma-3-270m-pt", "gemma3_270m", None])
@pytest.mark.parametrize("hook", ["blocks.9.hook_resid_post", "blocks.10.hook_resid_pre", "model.layers.9.output",
                                  "layers.9.output", None])
def test_one_model_and_one_hook_point_have_many_names(model, hook):
    named(model, hook)


@pytest.mark.parametrize("model, hook, line", [
    ("google/gemma-3-270m-it", None, "of the model google/gemma-3-270m-it, and --like of gemma3_270m or google/gemma-3-270m"),
    ("gpt2", None, "of the model gpt2"),
    (None, "blocks.8.hook_resid_post", "reads blocks.8.hook_resid_post, and --like blocks.9.hook_resid_post or model.layers.9"),
    (None, "blocks.0.hook_resid_pre", "reads blocks.0.hook_resid_pre"),
    (None, "layers.19.output", "reads layers.19.output"),
])
def test_another_model_or_hook_point_is_refused_unless_only_its_name_differs(model, hook, line):
    with pytest.raises(UsageError, match=line):
        named(model, hook)
    named(model, hook, any_name=True)


def test_weights_of_the_hub_have_the_name_of_their_repository_alone():
    job = JOB | {"model": JOB["model"] | {"source": {"hub": "google/gemma-3-1b-pt"}}}
    named("google/gemma-3-1b", None, job)
    with pytest.raises(UsageError, match="--like of gemma3_270m or google/gemma-3-1b-pt;"):
        named("google/gemma-3-4b", None, job)


# The arithmetic

def test_a_fold_of_nothing_keeps_every_bit():
    n = numbers(norms=False)
    made = folded(Original(n["W_enc"].T, n["b_enc"], n["W_dec"], n["b_dec"], threshold=n["threshold"]))
    assert all(torch.equal(made[key], n[key]) for key in n)


def test_units_of_input_and_output_that_differ_are_folded_with_a_bias_before_the_encoder():
    n, a, c = numbers(), 0.5, 0.8
    made = folded(Original(n["W_enc"].T, n["b_enc"], n["W_dec"], n["b_dec"], threshold=n["threshold"], a=a, c=c))
    pi = (a * X - n["b_dec"]) @ n["W_enc"] + n["b_enc"]
    f = pi * (pi > n["threshold"])
    ours = (X - made["b_dec"]) @ made["W_enc"] + made["b_enc"]
    ours = ours * (ours > made["threshold"])
    assert torch.equal(ours > 0, f > 0)
    torch.testing.assert_close(ours @ made["W_dec"] + made["b_dec"], (f @ n["W_dec"] + n["b_dec"]) / c, **CLOSE)


def test_a_latent_without_a_direction_changes_no_reconstruction():
    n = numbers()
    n["W_dec"][4] = 0
    for more in ({"threshold": n["threshold"]}, {"k": K, "by_norm": True}):
        made = folded(Original(n["W_enc"].T, n["b_enc"], n["W_dec"], n["b_dec"], **more))
        assert all(bool(tensor.isfinite().all()) for tensor in made.values()) and not made["W_dec"][4].any()
        torch.testing.assert_close(made["W_enc"][:, 4], n["W_enc"][:, 4] if "threshold" in more else torch.zeros(D))
