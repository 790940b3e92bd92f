"""The folder sae/: the content of its files, and that SAELens loads them and computes the same."""
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

from saesweep.arch.batchtopk import BatchTopK
from saesweep.arch.gated import Gated
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.relu import ReLU
from saesweep.arch.topk import TopK
from saesweep.storage import sae_format

CONF = Path(__file__).parents[1] / "conf"
D_IN, D_SAE, K = 12, 40, 5
AUX = {"alpha": 0.03, "k_aux": 6, "aux_tokens": 100}
MAKE = {
    "relu": lambda: ReLU(D_IN, D_SAE, K),
    "gated": lambda: Gated(D_IN, D_SAE, K),
    "jumprelu": lambda: JumpReLU(
        D_IN, D_SAE, K, bandwidth=0.5, init_threshold=0.5, relative=True, warm_start=0.5, threshold_tokens=3200
    ),
    "topk": lambda: TopK(D_IN, D_SAE, K, **AUX),
    "batchtopk": lambda: BatchTopK(D_IN, D_SAE, K, threshold_tokens=3200, **AUX),
}
PER_LATENT = {  # in addition to W_enc, W_dec, b_dec
    "standard": {"b_enc"}, "topk": {"b_enc"}, "jumprelu": {"b_enc", "threshold"}, "gated": {"b_gate", "b_mag", "r_mag"},
}
SAVED_AS = {"relu": "standard", "gated": "gated", "jumprelu": "jumprelu", "topk": "topk", "batchtopk": "jumprelu"}
METRICS = {"l0": 5.1, "dead": 0.25}


def job(arch="jumprelu", site="resid", layer=9, model="gemma3_270m"):
    """The parts of a job's config that enter cfg.json."""
    files = (CONF / "model" / f"{model}.yaml", CONF / "site" / f"{site}.yaml")
    model, site = (OmegaConf.to_container(OmegaConf.load(file)) for file in files)
    text, arch = {"name": "python_stdlib"}, {"name": arch}
    return {"model": model, "site": site, "layer": layer, "context": 128, "text": text, "arch": arch}


def folded(name):
    """A folded SAE with every parameter perturbed, and a batch of raw activations."""
    torch.manual_seed(3)
    sae = MAKE[name]().requires_grad_(False)
    for parameter in sae.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)  # as the optimizer does
    sae.constrain_()
    if name == "batchtopk":
        sae.batch_threshold.value.fill_(0.4)
    mean, scale = 3 * torch.randn(D_IN), 7.0
    sae.fold_(mean, scale)
    return sae, mean + scale * torch.randn(200, D_IN) / D_IN**0.5


def written(folder, name, **where):
    sae, x = folded(name)
    sae_format.save(folder, sae, job(name, **where), METRICS)
    return sae, x


@pytest.mark.parametrize("name", MAKE)
def test_the_weights_have_the_names_shapes_and_dtype_of_the_format(name, tmp_path):
    sae, _ = written(tmp_path, name)
    with safe_open(tmp_path / "sae_weights.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    per_latent = dict.fromkeys(PER_LATENT[SAVED_AS[name]], (D_SAE,))
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)} | per_latent
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == shapes
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["W_enc"], sae.W_enc) and torch.equal(tensors["W_dec"], sae.W_dec)
    assert torch.allclose(tensors["W_dec"].norm(dim=1), torch.ones(D_SAE), atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
def test_cfg_json_describes_the_computation_and_the_training(name, tmp_path):
    written(tmp_path, name)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    metadata = cfg.pop("metadata")
    only_topk = {"k": K, "rescale_acts_by_decoder_norm": False} if name == "topk" else {}
    assert cfg == only_topk | {
        "architecture": SAVED_AS[name], "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
    }
    assert metadata["training_architecture"] == name
    assert metadata["hook_name"] == "blocks.9.hook_resid_post" and metadata["context_size"] == 128
    assert metadata["l0"] == 5.1 and metadata["num_dead_features"] == 10 and metadata["prepend_bos"] is True


@pytest.mark.parametrize(
    "site, model, hook_name, reshaped, module",
    [
        ("mlp", "gemma3_270m", "blocks.9.hook_mlp_out", "none", "model.layers.9.post_feedforward_layernorm"),
        ("attn", "gemma3_270m", "blocks.9.attn.hook_z", "hook_z", "model.layers.9.self_attn"),
        ("attn", "gpt2", "blocks.9.attn.hook_z", "hook_z", "transformer.h.9.attn"),
    ],
)
def test_the_hook_point_has_the_names_of_transformer_lens_and_transformers(site, model, hook_name, reshaped, module):
    cfg = sae_format.sae_lens_config(folded("relu")[0], job(site=site, model=model), METRICS)
    assert cfg["metadata"]["hook_name"] == hook_name and cfg["reshape_activations"] == reshaped
    assert module == cfg["metadata"]["hf_hook_name"]


def test_a_model_of_the_hub_has_the_hubs_name():
    name = sae_format.sae_lens_config(folded("relu")[0], job(model="gpt2"), METRICS)["metadata"]["model_name"]
    assert name == "openai-community/gpt2"
    packaged = {"gemma3_270m": "google/gemma-3-270m", "smollm2_135m": "HuggingFaceTB/SmolLM2-135M-Instruct", "tiny": "tiny"}
    for model, name in packaged.items():
        found = job(model=model)
        assert sae_format.sae_lens_config(folded("relu")[0], found, METRICS)["metadata"]["model_name"] == name
        if found["model"].pop("hub_name", None):  # of a sweep of before this key
            assert sae_format.sae_lens_config(folded("relu")[0], found, METRICS)["metadata"]["model_name"] == model
    of_hub = job(model="smollm2_135m")
    of_hub["model"]["source"]["hub"] = "HuggingFaceTB/SmolLM2-135M"
    cfg = sae_format.sae_lens_config(folded("relu")[0], of_hub, METRICS)
    assert cfg["metadata"]["model_name"] == "HuggingFaceTB/SmolLM2-135M"


@pytest.mark.parametrize("folder, file", [(0o755, 0o644), (0o775, 0o664), (0o700, 0o600)])
def test_the_weights_have_the_permissions_of_their_folder(folder, file, tmp_path):
    tmp_path.chmod(folder)
    written(tmp_path, "relu")
    assert (tmp_path / "sae_weights.safetensors").stat().st_mode & 0o777 == file


def test_saving_again_replaces_both_files_and_leaves_no_temporary_file(tmp_path):
    written(tmp_path, "topk")
    written(tmp_path, "gated")
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "gated"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


@pytest.mark.parametrize("name", MAKE)
def test_our_reader_of_the_format_encodes_the_same(name):
    sae, x = folded(name)
    read = sae_format.encoded(sae.saved_as, sae.exported(), K, x)
    torch.testing.assert_close(read, sae.encode(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_saelens_encodes_and_decodes_the_same(name, tmp_path):
    sae_lens = pytest.importorskip("sae_lens", reason="pip install sae-lens to compare with it")
    ours, x = written(tmp_path, name)
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    f = ours.encode(x)
    assert 0 < float((f > 0).float().mean()) < 1
    assert torch.equal(theirs.encode(x) > 0, f > 0)
    torch.testing.assert_close(theirs.encode(x), f, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.decode(f), ours.decode(f), rtol=1e-5, atol=1e-5)


def test_saelens_keeps_the_metadata_of_the_training(tmp_path):
    sae_lens = pytest.importorskip("sae_lens", reason="pip install sae-lens to compare with it")
    written(tmp_path, "gated", model="smollm2_135m")
    metadata = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu").cfg.metadata
    assert metadata.hook_name == "blocks.9.hook_resid_post" and metadata.model_name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert metadata.prepend_bos is False and metadata.context_size == 128 and metadata.l0 == 5.1


def test_saelens_takes_separate_or_concatenated_heads_at_attn(tmp_path):
    """A loaded SAE expects [..., heads, head_dim], as from SAELens' models; concatenated rows need one call."""
    sae_lens = pytest.importorskip("sae_lens", reason="pip install sae-lens to compare with it")
    ours, x = written(tmp_path, "jumprelu", site="attn")
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    heads = x.unflatten(-1, (3, D_IN // 3))
    torch.testing.assert_close(theirs.encode(heads), ours.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(heads), ours(x).unflatten(-1, (3, -1)), rtol=1e-5, atol=1e-5)
    theirs.turn_off_forward_pass_hook_z_reshaping()
    torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)
