"""The tokenizer of a model's folder, and the number of positions of the model."""

import json
from pathlib import Path
from typing import Any

import model_folders
import pytest
from model_folders import LLAMA, TOKENS, byte_tokenizer, conf, llama, remove
from small import job, write_text

from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.lm.models import load_tokenizer

TEXT = "the quick brown fox jumps over the lazy dog, twice."

@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folders.write(tmp_path / "model", "llama", **LLAMA)


def test_a_tokenizer_with_truncation_and_padding_encodes_whole_texts(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=1, pad_token="<pad>")
    model_folders.write_tokenizer(folder, tokenizer)
    assert json.loads((folder / "tokenizer.json").read_text())["truncation"]["max_length"] == 16
    long, short = load_tokenizer(llama(folder)).encode([TEXT, "a"])
    assert len(long) == len(TEXT) and len(short) == 1


def test_a_tokenizer_with_dropout_applies_every_merge(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer((("t", "h"), ("th", "e")), dropout=0.9)
    model_folders.write(tmp_path, "llama", tokenizer, **LLAMA | {"vocab_size": TOKENS + 2})
    found = load_tokenizer(llama(tmp_path)).encode(["the" * 50])
    assert found == [[TOKENS + 1] * 50]


@pytest.mark.parametrize(("name", "model_type", "sizes"), [
    ("gpt2", "gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 2}),
    ("gemma2_2b", "gemma2", {**LLAMA, "head_dim": 16}),
    ("pythia_70m", "gpt_neox", {key: LLAMA[key] for key in LLAMA if key != "num_key_value_heads"}),
])
def test_missing_tokenizer_files_are_refused(
    name: str, model_type: str, sizes: dict, tmp_path: Path
) -> None:
    model_folders.write(tmp_path, model_type, **sizes)
    remove(tmp_path, "tokenizer.json", "tokenizer_config.json")
    with pytest.raises(UsageError, match="its tokenizer cannot be loaded: there are no files of one"):
        load_tokenizer(conf(name, tmp_path))


def test_a_cached_repository_without_its_tokenizer_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have fetched only the config."""
    home = tmp_path / "models--owner--name"
    model_folders.write(home / "snapshots" / "1234", "gpt2", n_embd=32, n_layer=3, n_head=2)
    remove(home / "snapshots" / "1234", "tokenizer.json", "tokenizer_config.json")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("1234")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="owner/name is not on this machine"):
        load_tokenizer(conf("gpt2", Path("owner/name")))


def lm_job(folder: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return job(write_text(tmp_path, 200)) | {"model": llama(folder)} | changes


def test_a_context_beyond_the_models_positions_is_refused_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    remove(folder, "model.safetensors")
    assert Resources().require_long_enough_text(lm_job(folder, tmp_path, context=64))[1].positions == 64
    with pytest.raises(UsageError, match=r"context=65: small was made for 64 positions; write context=64"):
        Resources().require_long_enough_text(lm_job(folder, tmp_path, context=65))


def test_learned_positions_and_those_of_random_models_are_limits(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "gpt2", n_embd=32, n_layer=3, n_head=2, n_positions=48)
    assert load_tokenizer(conf("gpt2", tmp_path)).positions == 48
    assert load_tokenizer(job(None, "model=tiny")["model"]).positions == 512
