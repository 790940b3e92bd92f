"""model.load: what transformers' from_pretrained is given, what of it identifies the activations, and quantised weights."""
import json
from pathlib import Path
from typing import Any

import model_folders
import pytest
import torch
from model_folders import LLAMA, change, llama
from safetensors.torch import load_file
from small import RESOURCES, job, write_text

from saesweep.config.check import check_model
from saesweep.config.settings import own_settings
from saesweep.data.disk_cache import digest
from saesweep.errors import UsageError
from saesweep.lm.models import load, load_tokenizer
from saesweep.study.subjects import reads
from saesweep.training.origin import determined_by


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folders.write(tmp_path_factory.mktemp("whole"), "llama", **LLAMA)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_text(tmp_path_factory.mktemp("text"))


def test_the_attention_is_the_asked_one(whole: Path) -> None:
    assert load(llama(whole)).module.config._attn_implementation == "sdpa"
    assert load(llama(whole, load={"attn_implementation": "eager"})).module.config._attn_implementation == "eager"
    assert load(llama(whole, load={})).module.config._attn_implementation == "sdpa"


def test_the_map_of_devices_may_name_that_of_the_trainer_alone(whole: Path) -> None:
    module = load(llama(whole, load={"device_map": "cpu"})).module
    assert torch.equal(module.state_dict()["lm_head.weight"], load_file(whole / "model.safetensors")["lm_head.weight"])
    with pytest.raises(UsageError, match=r"model\.load\.device_map=.*: puts weights on meta; give the device .*, cpu$"):
        load(llama(whole, load={"device_map": {"": "meta"}}))


@pytest.mark.parametrize(("given", "message"), [
    ({"atn": "sdpa"}, r"model\.load\.atn=sdpa: there is no key model\.load\.atn"),
    ({"attn_implementation": "kernels-community/flash"}, r"model\.load\.attn_implementation=.*: must be sdpa or eager or flex"),
    ({"quantization_config": 8}, r"model\.load\.quantization_config=8: must be a group of keys"),
])
def test_a_wrong_key_or_value_is_refused(given: dict, message: str, whole: Path) -> None:
    with pytest.raises(UsageError, match=message):
        check_model(llama(whole, load=given))


def test_made_weights_are_not_quantised_nor_placed() -> None:
    model = job(None, "model=tiny")["model"]
    check_model(model | {"load": {"attn_implementation": "eager", "device_map": None}})
    for key, value in {"quantization_config": {"quant_method": "fp8"}, "device_map": "cpu"}.items():
        with pytest.raises(UsageError, match=rf"model\.load\.{key}: is for weights in files"):
            check_model(model | {"load": {key: value}})


def test_the_cap_of_an_attention_is_not_left_out() -> None:
    model = job(None, "model=tiny", "model.source.random.model_type=gemma2")["model"]
    with pytest.raises(UsageError, match=r"model\.load\.attn_implementation=sdpa: leaves out the soft cap .*; write eager"):
        load(model | {"load": {"attn_implementation": "sdpa"}})


FP8 = {"quant_method": "fp8", "dequantize": True, "weight_block_size": [16, 16]}


@pytest.mark.parametrize("load_with", [{"attn_implementation": "eager"}, {"quantization_config": FP8}])
def test_what_changes_activations_identifies_them(load_with: dict, whole: Path, text: str) -> None:
    def identities(load: Any) -> list[Any]:
        settings = job(text) | {"model": llama(whole, **load)}
        return [digest(determined_by(settings, RESOURCES)), own_settings(settings)["model"], reads(settings)]

    plain = identities({})
    nothing = {"attn_implementation": None, "quantization_config": None, "device_map": "cpu"}
    assert identities({"load": {}}) == identities({"load": nothing}) == identities({"load": None}) == plain
    assert all(one != other for one, other in zip(identities({"load": load_with}), plain, strict=True))


# Quantised weights


@pytest.mark.parametrize(("quantised", "message"), [
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "requires bitsandbytes"),
    ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao"),
    ({"quant_method": "own"}, "transformers does not know the method"),
    ({"bits": 4}, "quant_method"),
])
def test_a_method_that_this_machine_lacks_is_refused_before_weights_are_read(
    quantised: dict, message: str, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"(?s)^model\.load\.quantization_config=.*{message}.*dequantised copy$") as refused:
        load_tokenizer(llama(whole, load={"quantization_config": quantised}))
    assert "\n" not in str(refused.value)


@pytest.fixture
def fp8(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A model with the weights of one projection in 8 bits and a scale for each block of 16 by 16; and what they stand for."""
    folder = model_folders.write(tmp_path / "fp8", "llama", **LLAMA)
    name, found = "model.layers.0.mlp.up_proj.weight", {}

    def quantise(tensors: dict) -> dict:
        for key, x in list(tensors.items()):
            if key.endswith("proj.weight"):
                blocks = x.unflatten(0, (-1, 16)).unflatten(2, (-1, 16))
                scale = blocks.abs().amax((1, 3)) / 448
                tensors[key] = (blocks / scale[:, None, :, None]).reshape(x.shape).to(torch.float8_e4m3fn)
                tensors[f"{key}_scale_inv"] = scale
                found[key] = (tensors[key].float().unflatten(0, (-1, 16)).unflatten(2, (-1, 16)) * scale[:, None, :, None])
        return tensors

    model_folders.weights(folder, quantise)
    change(folder, "config.json", quantization_config={key: FP8[key] for key in ("quant_method", "weight_block_size")})
    return folder, found[name].reshape(LLAMA["intermediate_size"], -1)


def test_weights_in_8_bits_are_read_as_transformers_dequantises_them(fp8: tuple, caplog: pytest.LogCaptureFixture) -> None:
    folder, expected = fp8
    with caplog.at_level("INFO"):
        module = load(llama(folder, load={"quantization_config": FP8})).module
    found = module.get_submodule("model.layers.0.mlp.up_proj").weight.float()
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
    assert "small: fp8 weights, dequantised" in caplog.text


def test_another_quantisation_than_the_weights_have_is_refused(fp8: tuple) -> None:
    for asked, message in (({**FP8, "weight_block_size": [8, 8]}, r"weight_block_size=\[8, 8\]: the weights were quantised"),
                           ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "its weights are quantised .fp8.")):
        with pytest.raises(UsageError, match=message):
            load_tokenizer(llama(fp8[0], load={"quantization_config": asked}))


def test_an_old_quantisation_is_refused(fp8: tuple) -> None:
    config = json.loads((fp8[0] / "config.json").read_text())
    change(fp8[0], "config.json", quantization_config=None, compression_config=config["quantization_config"])
    with pytest.raises(UsageError, match=r"compression_config.*dequantised copy"):
        load_tokenizer(llama(fp8[0]))
