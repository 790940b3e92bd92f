"""The folder of a model is checked: it loads as its files describe it, or is refused in one line."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_folders
import pytest
import torch
import transformers
from model_folders import LLAMA, TOKENS, byte_tokenizer, change, conf, llama, remove, weights
from safetensors.torch import load_file

from saesweep.errors import UsageError
from saesweep.lm.models import load, load_tokenizer, weights_identity


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folders.write(tmp_path_factory.mktemp("whole"), "llama", **LLAMA)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def with_weight(value: float) -> Callable[[dict], dict]:
    def change_one(tensors: dict) -> dict:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        return tensors

    return change_one


def only_pickles(folder: Path) -> None:
    remove(folder, "model.safetensors")
    torch.save({}, folder / "pytorch_model.bin")


def with_index(folder: Path, index: str) -> None:
    remove(folder, "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)


def adapter(folder: Path, files: tuple[str, ...] = ("config.json", "model.safetensors")) -> None:
    remove(folder, *files)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


SHARDS = '{"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}'
CODE = {"AutoConfig": "configuration.Own", "AutoModelForCausalLM": "modeling.Own"}
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a prefix of every key": (
        lambda f: weights(f, lambda w: {f"_orig_mod.{key}": x for key, x in w.items()}),
        r"lacks lm_head.weight, .* and \d+ more; has no place for _orig_mod\.lm_head\.weight",
    ),
    "no head": (
        lambda f: weights(f, lambda w: {key: x for key, x in w.items() if key != "lm_head.weight"}), r"lacks lm_head\.weight;",
    ),
    "an extra tensor": (lambda f: weights(f, lambda w: w | {"score.weight": torch.ones(2)}), "has no place for score.weight"),
    "another shape": (lambda f: weights(f, lambda w: w | {"lm_head.weight": torch.ones(7, 32)}), r"shape lm_head\.weight"),
    "an extra block in the file": (lambda f: change(f, "config.json", num_hidden_layers=2), r"model\.layers=3: small has 2"),
    "a missing block in the file": (
        lambda f: weights(f, lambda w: {key: x for key, x in w.items() if "layers.2" not in key}), r"lacks model\.layers\.2\.",
    ),
    "not a number": (lambda f: weights(f, with_weight(float("nan"))), r"NaN or infinite in float32: model\.layers\.1\.mlp\."),
    "infinite": (lambda f: weights(f, with_weight(float("inf"))), r"NaN or infinite in float32: model\.layers\.1\.mlp\."),
    "gptq": (lambda f: change(f, "config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "dequantised copy"),
    "awq": (lambda f: change(f, "config.json", quantization_config={"quant_method": "awq", "bits": 4}), "dequantised copy"),
    "bitsandbytes": (
        lambda f: change(f, "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "dequantised copy",
    ),
    "an unknown quantisation": (lambda f: change(f, "config.json", quantization_config={"quant_method": "x"}), "dequantised"),
    "its own code": (lambda f: change(f, "config.json", auto_map=CODE), "no code of a repository is run"),
    "its own code and type": (
        lambda f: change(f, "config.json", auto_map=CODE, model_type="own"), "no code of a repository is run",
    ),
    "only an adapter": (adapter, "merge it into its base model"),
    "an adapter with a config": (lambda f: adapter(f, ("model.safetensors",)), "merge it into its base model"),
    "an adapter beside weights": (lambda f: adapter(f, ()), "merge it into its base model"),
    "an unknown type": (lambda f: change(f, "config.json", model_type="nonsense"), "model type `nonsense`"),
    "an encoder and a decoder": (
        lambda f: (f / "config.json").write_text(transformers.T5Config().to_json_string()), "t5 is not a causal language model",
    ),
    "a size that is a string": (lambda f: change(f, "config.json", hidden_size="32"), "hidden_size"),
    "a size that is not the file's": (lambda f: change(f, "config.json", hidden_size=64), "another shape"),
    "no config": (lambda f: remove(f, "config.json"), "there is no config.json in it"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json is not a JSON object"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json is not a JSON object"),
    "no tokenizer": (lambda f: remove(f, "tokenizer.json", "tokenizer_config.json"), "its tokenizer cannot be"),
    "no tokenizer.json": (lambda f: remove(f, "tokenizer.json"), "its tokenizer cannot be loaded"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json is not a JSON object"),
    "a tokenizer of another kind": (
        lambda f: (f / "tokenizer.json").write_text('{"version": "1.0"}'), "its tokenizer cannot be loaded",
    ),
    "a broken tokenizer config": (
        lambda f: (f / "tokenizer_config.json").write_text("{"), r"tokenizer_config\.json is not a JSON object",
    ),
    "a slow tokenizer": (
        lambda f: change(f, "tokenizer_config.json", tokenizer_class="ByT5Tokenizer"), "ByT5Tokenizer is not a fast tokenizer",
    ),
    "a tokenizer with an extra token": (
        lambda f: model_folders.write_tokenizer(f, byte_tokenizer((("t", "h"),))),
        rf"{TOKENS + 1} tokens.* embedding {TOKENS} rows",
    ),
    "only pickles": (only_pickles, "no pickle"),
    "no weights": (lambda f: remove(f, "model.safetensors"), "its weights cannot be loaded: .*model.safetensors"),
    "a missing shard": (lambda f: with_index(f, SHARDS), "model-00001-of-00002.safetensors"),
    "a broken index": (lambda f: with_index(f, "{"), r"model\.safetensors\.index\.json is not a JSON object"),
    "an empty index": (lambda f: with_index(f, "{}"), "weights cannot be loaded: KeyError: 'weight_map'"),
    "a key that cannot be set": (lambda f: change(f, "config.json", use_return_dict=True), "its config.json cannot be loaded"),
    "an unknown activation": (
        lambda f: change(f, "config.json", hidden_act="own"), "its config cannot be used: .*own.*correct config.json",
    ),
    "an unknown scaling": (
        lambda f: change(f, "config.json", rope_scaling={"rope_type": "own", "factor": 2.0}), "config cannot be used: .*own",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_inconsistent_or_damaged_folder_is_refused_in_one_line(wrong: str, folder: Path) -> None:
    damage, message = WRONG[wrong]
    damage(folder)
    with pytest.raises(UsageError, match=message) as refused:
        load(llama(folder))
    line = str(refused.value)
    assert line.startswith(("model.source.hub=", "model.layers=")) and "\n" not in line and len(line) < 700


@pytest.mark.parametrize("hub", ["my model", "owner/my model", "owner/näme", "a..b", "owner/name?", "a/", " "])
@pytest.mark.parametrize("function", [load_tokenizer, weights_identity])
def test_a_hub_that_is_neither_a_repository_nor_a_folder_is_refused(function: Callable, hub: str) -> None:
    with pytest.raises(UsageError, match="is neither a repository"):
        function(llama(Path("x"), source={"hub": hub, "revision": "main"}))


@pytest.mark.parametrize("wrong", ["no head", "an extra tensor", "another shape", "a key that cannot be set"])
def test_the_warnings_of_transformers_about_wrong_weights_are_not_printed(
    wrong: str, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    WRONG[wrong][0](folder)
    before = transformers.utils.logging.get_verbosity()
    with pytest.raises(UsageError):
        load(llama(folder))
    assert not caplog.records and transformers.utils.logging.get_verbosity() == before


@pytest.mark.parametrize("hub", ["/nowhere/model", "./model", "~/no_such_model_here", "a/b/c"])
def test_a_missing_folder_is_not_taken_for_a_repository(hub: str) -> None:
    with pytest.raises(UsageError, match=r"model\.source\.hub=.*: there is no such folder"):
        load_tokenizer(llama(Path("x"), source={"hub": hub, "revision": "main"}))


def test_a_folder_below_the_home_folder_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    lm = load(llama(folder, source={"hub": "~/model", "revision": "main"}))
    assert torch.equal(lm.module.state_dict()["lm_head.weight"], load_file(folder / "model.safetensors")["lm_head.weight"])


def test_tensors_that_the_model_class_ignores_are_accepted(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "gpt2", n_embd=32, n_layer=3, n_head=2, n_positions=64)
    weights(tmp_path, lambda w: w | {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64)})
    load(conf("gpt2", tmp_path))


def test_a_tied_head_may_be_missing_and_the_embedding_may_have_extra_rows(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "llama", **LLAMA | {"tie_word_embeddings": True, "vocab_size": TOKENS + 30})
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    lm = load(llama(tmp_path))
    assert lm.module.lm_head.weight is lm.module.model.embed_tokens.weight and lm.tokenizer.vocab_size == TOKENS


def test_weights_that_overflow_float16_are_refused_with_float32_as_the_fix(folder: Path) -> None:
    weights(folder, with_weight(1e6))
    load(llama(folder))
    with pytest.raises(UsageError, match=r"infinite in float16: model\.layers\.1\.mlp.*model\.dtype=float32"):
        load(llama(folder, dtype="float16"))


def test_a_model_whose_logits_overflow_is_not_refused_as_not_causal(folder: Path) -> None:
    weights(folder, lambda w: w | {"lm_head.weight": 6e4 * w["lm_head.weight"].sign()})
    module = load(llama(folder, dtype="float16")).module
    assert not module(input_ids=torch.arange(2, 6)[None]).logits.isfinite().all()
