"""Every model class of conf/model equals transformers' eager implementation, with all features of its config."""

from pathlib import Path
from typing import Any

import model_folders
import pandas as pd
import pytest
import torch
import transformers
import warm
from small import CONF, command, write_text
from standin.cli import ENV
from torch import Tensor

import saesweep
from saesweep.data.harvest import harvest
from saesweep.lm.hooks import HookPoint, edit, hook_point, read, tensors_of
from saesweep.lm.models import LanguageModel, load

LAYERS = 4
SIZES = {"hidden_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "max_position_embeddings": 128}
GROUPED = {**SIZES, "intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
SHORT_ROPE = {**DEFAULT_ROPE, "rope_theta": 10.0}
TWO_ROPES = {"sliding_attention": DEFAULT_ROPE, "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0}}
ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)
GEMMA2 = (
    "gemma2",
    {**GROUPED, "sliding_window": 8, "layer_types": ALTERNATING, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0,
     "query_pre_attn_scalar": 24},
    {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 64,
     "layer_types": ["full_attention"] * LAYERS, "query_pre_attn_scalar": 16},
)
GEMMA3 = (
    "gemma3_text",
    {**GROUPED, "sliding_window": 8, "layer_types": ALTERNATING, "rope_parameters": TWO_ROPES, "query_pre_attn_scalar": 24},
    {"sliding_window": 64, "layer_types": ["full_attention"] * LAYERS, "query_pre_attn_scalar": 16,
     "rope_parameters": {kind: DEFAULT_ROPE for kind in TWO_ROPES}},
)
NEOX = (
    "gpt_neox",
    {**SIZES, "intermediate_size": 96, "use_parallel_residual": True,
     "rope_parameters": {**DEFAULT_ROPE, "partial_rotary_factor": 0.25}},
    {"use_parallel_residual": False, "rope_parameters": {**DEFAULT_ROPE, "partial_rotary_factor": 1.0}},
)
FAMILIES = {  # per file: model_type, sizes, and the values that switch the features of its config off
    "gemma2_2b": GEMMA2,
    "gemma2_9b": GEMMA2,
    "gemma3_270m": GEMMA3,
    "tiny": GEMMA3,
    "gpt2": (
        "gpt2",
        {"n_embd": 48, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_by_inverse_layer_idx": False, "activation_function": "relu"},
    ),
    "llama3_8b": (
        "llama", {**GROUPED, "rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}, {"rope_parameters": DEFAULT_ROPE},
    ),
    "smollm2_135m": ("llama", {**GROUPED, "tie_word_embeddings": True}, {"rope_parameters": SHORT_ROPE}),
    "pythia_70m": NEOX,
    "pythia_160m": NEOX,
    "qwen3_0_6b": (
        "qwen3", {**GROUPED, "tie_word_embeddings": True, "attention_bias": True},
        {"rope_parameters": SHORT_ROPE, "rms_norm_eps": 1.0},
    ),
}
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in ("activations", "synthetic"))
TOKENS = torch.randint(2, model_folders.TOKENS, (3, 24), generator=torch.Generator().manual_seed(0))  # longer than the windows


@pytest.fixture(scope="module", params=NAMES)
def name(request: Any) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_type, sizes, _ = FAMILIES[name]
    return model_folders.write(tmp_path_factory.mktemp(name), model_type, **sizes)


@pytest.fixture(scope="module")
def lm(name: str, folder: Path) -> LanguageModel:
    return load(model_folders.conf(name, folder, layers=LAYERS))


@pytest.fixture(scope="module")
def points(name: str, folder: Path) -> list[HookPoint]:
    model = model_folders.conf(name, folder)
    assert model["sites"]["transcoder"]["target"] == model["sites"]["mlp"]
    return tensors_of(hook_point(model, site, layer) for site in model["sites"] for layer in range(LAYERS))


def eager(folder: Path, points: list[HookPoint], tokens: Tensor, **changes: Any) -> dict[str, Tensor]:
    """Activations and logits of transformers alone, by forward hooks."""
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **changes).eval()
    seen: dict[str, Tensor] = {}

    def keep(point: HookPoint):
        def hook(module: torch.nn.Module, args: tuple, out: Any) -> None:
            x = args[0] if point.tensor == "input" else out
            seen[str(point)] = (x[0] if isinstance(x, tuple) else x).clone()

        return hook

    for point in points:
        module.get_submodule(point.module).register_forward_hook(keep(point))
    with torch.no_grad():
        return seen | {"logits": module(input_ids=tokens, use_cache=False).logits}


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def logits(lm: LanguageModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return lm.module(input_ids=tokens, use_cache=False).logits


def test_activations_at_every_site_and_logits_equal_those_of_eager_attention(lm, folder, points):
    expected, found = eager(folder, points, TOKENS), read(lm.module, points, TOKENS)
    assert max(distance(found[point], expected[str(point)]) for point in points) < 1e-5
    assert distance(logits(lm, TOKENS), expected["logits"]) < 1e-5


def test_each_feature_of_the_config_changes_the_logits(name, folder, points):
    with_it = eager(folder, points, TOKENS)
    for key, off in FAMILIES[name][2].items():
        config = transformers.AutoConfig.from_pretrained(folder)
        setattr(config, key, off)
        assert distance(eager(folder, points, TOKENS, config=config)["logits"], with_it["logits"]) > 1e-3, key


@pytest.mark.slow
def test_splicing_in_the_unmodified_activation_leaves_the_logits_bitwise_the_same(lm, points):
    clean = logits(lm, TOKENS)
    for point in points:
        with edit(lm.module, point, lambda x: x.clone()):
            assert torch.equal(logits(lm, TOKENS), clean), str(point)


def test_padding_changes_no_activation_before_it(lm, folder, points):
    padded = TOKENS[:1].clone()
    padded[:, 15:] = -1
    expected, found = eager(folder, points, TOKENS[:1, :15]), harvest(lm, points, padded)
    assert max(distance(found[point], expected[str(point)][0]) for point in points) < 1e-5


@pytest.mark.slow
@pytest.mark.process
def test_the_sweep_of_the_jumprelu_paper_runs_on_a_small_gemma2(tmp_path):
    folder = model_folders.write(tmp_path / "gemma2", GEMMA2[0], **GEMMA2[1])
    words = (
        "sweeps=paper_gemma2_9b", "model=gemma2_9b", f"model.source.hub={folder}", "model.name=small", f"model.layers={LAYERS}",
        "layer=2", "sparsity=4", "trainer=cpu", "tokens=1280", f"hydra.sweep.dir={tmp_path}/outputs",
    )
    ended = warm.run(command(write_text(tmp_path, 120), *words), tmp_path, ENV)
    assert ended.returncode == 0, ended.stderr
    rows = pd.read_csv(tmp_path / "outputs" / "pareto.csv")
    assert len(rows) == 3 * 3 and set(rows["arch"]) == {"paper_jumprelu", "paper_gated", "paper_topk"}
    assert rows["fvu"].between(0, 2).all() and rows["ce_sae"].notna().all()
    assert {d_in for d_in in rows["d_in"]} == {48, 64}  # attn: the heads concatenated
    sae = saesweep.load(tmp_path / "outputs" / rows["path"][0])
    assert sae.config["activations"]["max_norm"] is None and not sae.config["activations"]["center"]
