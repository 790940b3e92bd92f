"""What a model's folder says of itself is checked: it runs as its files mean it, or is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_folders
import pytest
import torch
import transformers
from model_folders import TOKENS, byte_tokenizer, change, conf
from safetensors.torch import load_file, save_file
from small import job, write_text

from saesweep.errors import UsageError
from saesweep.models import load, load_tokenizer
from saesweep.sites import hook_point, read
from saesweep.sweep.inputs import enough_text

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}
TEXT = "the quick brown fox jumps over the lazy dog, twice."


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folders.write(tmp_path_factory.mktemp("whole"), "llama", **LLAMA)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def llama(folder: Path, **changes: Any) -> dict[str, Any]:
    return conf("llama3_8b", folder, **changes)


def weights(folder: Path, changed: Callable[[dict], dict]) -> None:
    tensors = changed(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def poisoned(value: float) -> Callable[[dict], dict]:
    def change_one(tensors: dict) -> dict:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        return tensors

    return change_one


def without(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).unlink()


def of_bins(folder: Path) -> None:
    without(folder, "model.safetensors")
    torch.save({}, folder / "pytorch_model.bin")


def indexed(folder: Path, index: str) -> None:
    without(folder, "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)


def adapter(folder: Path, files: tuple[str, ...] = ("config.json", "model.safetensors")) -> None:
    without(folder, *files)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


SHARDS = '{"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}'
CODE = {"AutoConfig": "configuration.Own", "AutoModelForCausalLM": "modeling.Own"}
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "every key has a prefix": (
        lambda f: weights(f, lambda w: {f"_orig_mod.{key}": x for key, x in w.items()}),
        r"lacks lm_head.weight, .* and \d+ more; has no place for _orig_mod\.lm_head\.weight",
    ),
    "no head": (
        lambda f: weights(f, lambda w: {key: x for key, x in w.items() if key != "lm_head.weight"}), r"lacks lm_head\.weight;",
    ),
    "a tensor more": (lambda f: weights(f, lambda w: w | {"score.weight": torch.ones(2)}), "has no place for score.weight"),
    "another shape": (lambda f: weights(f, lambda w: w | {"lm_head.weight": torch.ones(7, 32)}), r"shape lm_head\.weight"),
    "a block more in the file": (lambda f: change(f, "config.json", num_hidden_layers=2), r"model\.layers=3: small has 2"),
    "a block less in the file": (
        lambda f: weights(f, lambda w: {key: x for key, x in w.items() if "layers.2" not in key}), r"lacks model\.layers\.2\.",
    ),
    "not a number": (lambda f: weights(f, poisoned(float("nan"))), r"NaN or infinite in float32: model\.layers\.1\.mlp\."),
    "infinite": (lambda f: weights(f, poisoned(float("inf"))), r"NaN or infinite in float32: model\.layers\.1\.mlp\."),
    "gptq": (lambda f: change(f, "config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "dequantised copy"),
    "awq": (lambda f: change(f, "config.json", quantization_config={"quant_method": "awq", "bits": 4}), "dequantised copy"),
    "bitsandbytes": (
        lambda f: change(f, "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "dequantised copy",
    ),
    "quantised some other way": (lambda f: change(f, "config.json", quantization_config={"quant_method": "x"}), "dequantised"),
    "its own code": (lambda f: change(f, "config.json", auto_map=CODE), "no code of a repository is run"),
    "its own code and type": (
        lambda f: change(f, "config.json", auto_map=CODE, model_type="own"), "no code of a repository is run",
    ),
    "an adapter alone": (adapter, "merge it into its base model"),
    "an adapter with a config": (lambda f: adapter(f, ("model.safetensors",)), "merge it into its base model"),
    "an adapter beside weights": (lambda f: adapter(f, ()), "merge it into its base model"),
    "an unknown type": (lambda f: change(f, "config.json", model_type="nonsense"), "model type `nonsense`"),
    "an encoder and a decoder": (
        lambda f: (f / "config.json").write_text(transformers.T5Config().to_json_string()), "t5 is no causal language model",
    ),
    "a size as text": (lambda f: change(f, "config.json", hidden_size="32"), "hidden_size"),
    "a size that is not the file's": (lambda f: change(f, "config.json", hidden_size=64), "another shape"),
    "no config": (lambda f: without(f, "config.json"), "there is no config.json in it"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json is no JSON object"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json is no JSON object"),
    "no tokenizer": (lambda f: without(f, "tokenizer.json", "tokenizer_config.json"), "its tokenizer cannot be"),
    "no tokenizer.json": (lambda f: without(f, "tokenizer.json"), "its tokenizer cannot be loaded"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json is no JSON object"),
    "a tokenizer of another kind": (
        lambda f: (f / "tokenizer.json").write_text('{"version": "1.0"}'), "its tokenizer cannot be loaded",
    ),
    "a broken config of the tokenizer": (lambda f: (f / "tokenizer_config.json").write_text("{"), r"r_config\.json is no JSON"),
    "a slow tokenizer": (
        lambda f: change(f, "tokenizer_config.json", tokenizer_class="ByT5Tokenizer"), "ByT5Tokenizer is no fast tokenizer",
    ),
    "a tokenizer with a token more": (
        lambda f: model_folders.write_tokenizer(f, byte_tokenizer((("t", "h"),))),
        rf"{TOKENS + 1} tokens.* embedding {TOKENS} rows",
    ),
    "pickles alone": (of_bins, "no pickle"),
    "no weights": (lambda f: without(f, "model.safetensors"), "its weights cannot be loaded: .*model.safetensors"),
    "a shard less": (lambda f: indexed(f, SHARDS), "model-00001-of-00002.safetensors"),
    "a broken index": (lambda f: indexed(f, "{"), r"model\.safetensors\.index\.json is no JSON object"),
    "an empty index": (lambda f: indexed(f, "{}"), "KeyError: 'weight_map'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_folder_that_is_not_what_it_says_is_refused_in_one_line(wrong: str, folder: Path) -> None:
    damage, message = WRONG[wrong]
    damage(folder)
    with pytest.raises(UsageError, match=message) as refused:
        load(llama(folder))
    line = str(refused.value)
    assert line.startswith(("model.source.hub=", "model.layers=")) and "\n" not in line and len(line) < 700


@pytest.mark.parametrize("place", ["/nowhere/model", "./model", "~/no_such_model_here", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_repository(place: str) -> None:
    with pytest.raises(UsageError, match=r"model\.source\.hub=.*: there is no such folder"):
        load_tokenizer(llama(Path("x"), source={"hub": place, "revision": "main"}))


def test_a_folder_that_is_whole_loads_also_below_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    lm = load(llama(folder, source={"hub": "~/model", "revision": "main"}))
    assert torch.equal(lm.module.state_dict()["lm_head.weight"], load_file(folder / "model.safetensors")["lm_head.weight"])


def test_what_the_class_itself_ignores_is_not_refused(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "gpt2", n_embd=32, n_layer=3, n_head=2, n_positions=64)
    weights(tmp_path, lambda w: w | {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64)})
    load(conf("gpt2", tmp_path))


def test_a_tied_head_may_be_left_out_and_the_embedding_may_have_more_rows(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "llama", **LLAMA | {"tie_word_embeddings": True, "vocab_size": TOKENS + 30})
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    lm = load(llama(tmp_path))
    assert lm.module.lm_head.weight is lm.module.model.embed_tokens.weight and lm.tokenizer.vocab_size == TOKENS


def test_weights_that_float16_cannot_hold_are_refused_with_float32_as_the_fix(folder: Path) -> None:
    weights(folder, poisoned(1e6))
    load(llama(folder))
    with pytest.raises(UsageError, match=r"infinite in float16: model\.layers\.1\.mlp.*model\.dtype=float32"):
        load(llama(folder, dtype="float16"))


# The tokenizer


def test_a_tokenizer_that_cuts_and_pads_reads_whole_texts(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=1, pad_token="<pad>")
    model_folders.write_tokenizer(folder, tokenizer)
    assert json.loads((folder / "tokenizer.json").read_text())["truncation"]["max_length"] == 16
    long, short = load_tokenizer(llama(folder)).encode([TEXT, "a"])
    assert len(long) == len(TEXT) and len(short) == 1


def test_a_tokenizer_that_leaves_out_merges_at_random_does_not(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer((("t", "h"), ("th", "e")), dropout=0.9)
    model_folders.write(tmp_path, "llama", tokenizer, **LLAMA | {"vocab_size": TOKENS + 2})
    found = load_tokenizer(llama(tmp_path)).encode(["the" * 50])
    assert found == [[TOKENS + 1] * 50]


@pytest.mark.parametrize(("name", "model_type", "sizes"), [
    ("gpt2", "gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 2}),
    ("gemma2_2b", "gemma2", {**LLAMA, "head_dim": 16}),
    ("pythia_70m", "gpt_neox", {key: LLAMA[key] for key in LLAMA if key != "num_key_value_heads"}),
])
def test_an_empty_tokenizer_that_stands_in_for_missing_files_is_refused(
    name: str, model_type: str, sizes: dict, tmp_path: Path
) -> None:
    model_folders.write(tmp_path, model_type, **sizes)
    without(tmp_path, "tokenizer.json", "tokenizer_config.json")
    with pytest.raises(UsageError, match="its tokenizer cannot be loaded: there are no files of one"):
        load_tokenizer(conf(name, tmp_path))


def test_a_cached_repository_without_its_tokenizer_is_fetched_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the config was fetched before, as by another program."""
    home = tmp_path / "models--owner--name"
    model_folders.write(home / "snapshots" / "1234", "gpt2", n_embd=32, n_layer=3, n_head=2)
    without(home / "snapshots" / "1234", "tokenizer.json", "tokenizer_config.json")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("1234")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="owner/name is not on this machine"):
        load_tokenizer(conf("gpt2", Path("owner/name")))


# Positions


def lm_job(folder: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return job(write_text(tmp_path, 200)) | {"model": llama(folder)} | changes


def test_a_context_beyond_the_models_positions_is_refused_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    without(folder, "model.safetensors")
    assert enough_text(lm_job(folder, tmp_path, context=64))[1].positions == 64
    with pytest.raises(UsageError, match=r"context=65: small was made for 64 positions; write context=64"):
        enough_text(lm_job(folder, tmp_path, context=65))


def test_learned_positions_and_those_of_random_models_are_limits_too(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "gpt2", n_embd=32, n_layer=3, n_head=2, n_positions=48)
    assert load_tokenizer(conf("gpt2", tmp_path)).positions == 48
    assert load_tokenizer(job(None, "model=tiny")["model"]).positions == 512


# Other classes


def test_the_text_part_of_a_model_for_images_is_read_where_its_modules_are(tmp_path: Path) -> None:
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "vocab_size": TOKENS + 5, "sliding_window": 8, "initializer_range": 0.2}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
              "patch_size": 14}
    torch.manual_seed(0)
    whole = transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=TOKENS + 1,
        boi_token_index=TOKENS + 2, eoi_token_index=TOKENS + 3,
    )).eval()
    whole.save_pretrained(tmp_path)
    model_folders.write_tokenizer(tmp_path, byte_tokenizer())
    model, tokens = conf("gemma3_270m", tmp_path), torch.arange(2, 26)[None]
    module = load(model).module
    with pytest.raises(UsageError, match=r"no module 'model\.layers\.1': model has no 'layers', it has .*language_model"):
        read(module, [hook_point(model, "resid", 1)], tokens)
    model["sites"]["resid"]["module"] = "model.language_model.layers.{layer}"
    point = hook_point(model, "resid", 1)
    with torch.no_grad():
        expected = whole(input_ids=tokens, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(read(module, [point], tokens)[point], expected)


MAMBA = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 3, "pad_token_id": 1}


def test_sites_of_another_class_are_refused_with_the_modules_that_there_are(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "mamba", **MAMBA)
    model, tokens = llama(tmp_path), torch.arange(2, 12)[None]
    module = load(model).module
    with pytest.raises(UsageError, match=r"model\.sites: .*MambaForCausalLM has no 'model', it has backbone, lm_head"):
        read(module, [hook_point(model, "resid", 1)], tokens)
    model["sites"]["resid"]["module"] = "backbone.layers.{layer}"
    point = hook_point(model, "resid", 1)
    assert read(module, [point], tokens)[point].shape == (1, 10, 32)


@pytest.mark.parametrize("module", ["model.layers.{layer}.self_attn", "lm_head.{layer}"])
def test_a_module_without_a_tensor_to_read_is_refused_by_its_site(folder: Path, module: str) -> None:
    model = llama(folder, sites={"resid": {"module": module, "tensor": "input"}})
    with pytest.raises(UsageError, match=r"model\.sites: .*(self_attn|lm_head)"):
        read(load(model).module, [hook_point(model, "resid", 1)], torch.arange(2, 12)[None])


def test_a_site_with_other_braces_than_the_layers_is_refused(folder: Path) -> None:
    model = llama(folder, sites={"resid": {"module": "model.layers.{block}", "tensor": "output"}})
    with pytest.raises(UsageError, match=r"model\.sites\.resid\.module=model\.layers\.\{block\}: \{layer\} alone"):
        hook_point(model, "resid", 1)


@pytest.mark.parametrize("said", [
    {"attn_implementation": "flash_attention_2"}, {"return_dict": False}, {"output_hidden_states": True},
    {"output_attentions": True}, {"use_cache": True}, {"torch_dtype": "float16"}, {"dtype": "float16"},
])
def test_what_a_config_says_of_how_it_is_run_changes_nothing(folder: Path, said: dict) -> None:
    point, tokens = hook_point(llama(folder), "resid", 1), torch.arange(2, 26)[None]
    expected = read(load(llama(folder)).module, [point], tokens)[point]
    change(folder, "config.json", **said)
    module = load(llama(folder)).module
    assert torch.equal(read(module, [point], tokens)[point], expected)
    output = module(input_ids=tokens)
    assert list(output) == ["logits"] and output.logits.dtype == torch.float32


RANDOM = {"seed": 0, "num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 2, "intermediate_size": 64}


def test_a_random_gemma2_is_a_model_like_others() -> None:
    module = load(job(None, "model=tiny", "model.source.random.model_type=gemma2", "model.name=g2")["model"]).module
    assert type(module) is transformers.Gemma2ForCausalLM


@pytest.mark.parametrize(("settings", "message"), [
    ({"model_type": "nonsense"}, r"model\.source\.random: .*nonsense"),
    ({"model_type": "t5", "num_layers": 1}, "t5 is no causal language model"),
    ({"model_type": "llama", "hiden_size": 48}, r"model\.source\.random\.hiden_size=48: .*did you mean hidden_size"),
    ({"model_type": "llama", "hidden_size": "wide"}, r"model\.source\.random: .*hidden_size"),
    ({"model_type": "llama", "hidden_size": 50, "num_attention_heads": 3}, "multiple of the number of attention heads"),
    ({"model_type": "llama", "vocab_size": 300}, "vocab_size"),
    ({"hidden_size": 48}, "model_type"),
    ({"model_type": "bert"}, "not causal"),
])
def test_random_weights_of_no_causal_model_are_refused_in_one_line(settings: dict, message: str) -> None:
    sites = {"resid": {"module": "bert.encoder.layer.{layer}", "tensor": "output"}}
    sizes = {} if settings.get("model_type") == "t5" else RANDOM
    model = job(None, "model=tiny")["model"] | {"sites": sites, "source": {"random": sizes | settings}}
    with pytest.raises(UsageError, match=message) as refused:
        load(model)
    assert "\n" not in str(refused.value)
