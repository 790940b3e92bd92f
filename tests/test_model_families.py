"""Models of ten families, each from the YAML that `saesweep model` writes for it: all their sites train."""
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import families
import model_folders
import pytest
import torch
import transformers
from families import ENCODERS, FAMILIES
from model_folders import LLAMA, conf, llama
from omegaconf import OmegaConf
from small import CONF, RESOURCES, job, write_text
from test_models import FAMILIES as PACKAGED

from saesweep.config.check import check_model
from saesweep.data.harvest import harvest
from saesweep.data.scored import no_loss
from saesweep.errors import UsageError
from saesweep.lm.hooks import hook_point
from saesweep.lm.models import load, load_tokenizer
from saesweep.model.__main__ import write as write_yaml
from saesweep.model.describe import describe, of_config
from saesweep.sweep import plan, probe


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    few = ("tokens=256", "evaluation.tokens=128", "evaluation.lm_tokens=64", "activations.statistics=128")
    return families.base(write_text(tmp_path_factory.mktemp("text")), *few)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_site_that_is_found_trains(
    name: str, settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)  # half of the time, with all that the tests have in memory
    model, expected = families.described(families.write(name, tmp_path)), FAMILIES[name][2]
    assert {site: at["module"] for site, at in model["sites"].items()} == {site: at[0] for site, at in expected.items()}
    assert (model["layers"], model["layer"], model["dtype"], model["bos"]) == (3, 1, "float32", False)
    numbers = families.trained(settings, model, tmp_path / "out")
    assert {site: found["d_in"] for site, found in numbers.items()} == {site: at[1] for site, at in expected.items()}
    for found in numbers.values():
        assert 0 < found["fvu"] < 1.2 and found["l0"] == pytest.approx(4)
        assert (found["delta_loss"] is None) == (name in ENCODERS)


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_the_sites_of_every_file_of_conf_are_found(name: str) -> None:
    model_type, sizes, heads = PACKAGED[name]
    found = of_config(transformers.AutoConfig.for_model(model_type, **sizes), {"name": name})
    own = without_transcoder(OmegaConf.load(CONF / f"model/{name}.yaml").sites)
    assert {site: {"module": at.module, "tensor": at.tensor} for site, at in found.sites.items()} == own
    assert {site: at.d_in for site, at in found.sites.items()} == {"resid": 48, "mlp": 48, "attn": heads}


def without_transcoder(sites: Mapping) -> dict:
    """Of which a file is written by hand: two tensors."""
    return {site: at for site, at in sites.items() if "target" not in at}


def test_an_attention_in_some_layers_only_is_said(tmp_path: Path) -> None:
    sizes = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"}
    config = transformers.AutoConfig.for_model("jamba", **sizes | {"num_hidden_layers": 6}, attn_layer_period=3,
                                               attn_layer_offset=1, num_experts=2, use_mamba_kernels=False)
    found = of_config(config, {"name": "jamba"})
    assert found.sites["attn"].layers == [1, 4] and found.sites["mlp"].layers == [*range(6)]
    assert "attn: in the layers 1, 4 only; choose `layer` among them" in found.notes


def test_a_model_of_which_no_small_copy_runs_has_resid_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: object) -> None:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr("saesweep.model.describe.small", fails)
    found = of_config(transformers.AutoConfig.for_model("llama", **LLAMA), {"name": "x"})
    assert [*found.sites] == ["resid"] and found.sites["resid"].module == "model.layers.{layer}"
    assert "no small copy of it runs (RuntimeError: sizes do not match)" in found.notes[0]


def test_the_command_reads_no_weight_and_replaces_no_file(tmp_path: Path) -> None:
    folder = model_folders.write(tmp_path / "My-Model.1", "llama", **LLAMA)
    model_folders.remove(folder, "model.safetensors")
    shown = write_yaml(str(folder), folder=tmp_path / "conf")
    file = tmp_path / "conf/my_model_1.yaml"
    assert f"{file} is written: LlamaForCausalLM, 3 layers" in shown and "bos: its tokenizer has <|endoftext|> and" in shown
    written = OmegaConf.to_container(OmegaConf.load(file))
    assert written["sites"] == without_transcoder(llama(folder)["sites"])
    assert written["source"] == {"hub": str(folder), "revision": "main"}
    check_model(written)
    file.write_text("mine")
    with pytest.raises(UsageError, match="is there; give another --name, or replace it with --overwrite"):
        write_yaml(str(folder), folder=tmp_path / "conf")
    assert file.read_text() == "mine"
    write_yaml(str(folder), overwrite=True, folder=tmp_path / "conf")
    assert OmegaConf.to_container(OmegaConf.load(file)) == written
    with pytest.raises(UsageError, match="--name gpt2: model=gpt2 comes with saesweep"):
        write_yaml(str(folder), "gpt2", folder=tmp_path / "conf")
    with pytest.raises(UsageError, match="t5 is not a causal language model of transformers, nor an encoder"):
        (folder / "config.json").write_text(transformers.T5Config().to_json_string())
        describe(str(folder))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Its tokenizer has a [CLS] and no BOS; its file has a head."""
    folder = families.write("BERT", tmp_path_factory.mktemp("bert"))
    special = {"cls_token": "<|endoftext|>", "pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=model_folders.byte_tokenizer(), **special).save_pretrained(folder)
    sites = {"resid": {"module": "encoder.layer.{layer}", "tensor": "output"}}
    return conf("tiny", folder, sites=sites, bos=True)


def test_padding_changes_no_activation_of_an_encoder(bert: dict) -> None:
    lm, points = load(bert), [hook_point(bert, "resid", 2)]
    tokens = torch.arange(2, 26)[None]
    padded = torch.cat([tokens, torch.full((1, 9), -1)], 1)
    [alone], [beside] = harvest(lm, points, tokens).values(), harvest(lm, points, padded).values()
    torch.testing.assert_close(beside, alone)
    changed = tokens.clone()
    changed[0, -1] = 1
    assert not torch.allclose(next(iter(harvest(lm, points, changed).values()))[0], alone[0])  # it reads both ways


def test_an_encoder_begins_with_its_first_token_and_has_no_loss(bert: dict) -> None:
    tokenizer = load_tokenizer(bert)
    assert tokenizer.bos == 0 and not tokenizer.causal
    settings = job("text.jsonl") | {"model": bert}
    assert no_loss(settings, tokenizer) == (
        "evaluation.lm_tokens=256: without effect: small is an encoder, which predicts no next token; ce_clean, delta_loss and "
        "the like stay empty")


@pytest.mark.slow
def test_the_plan_of_an_encoder_counts_no_loss_and_says_so(bert: dict, tmp_path: Path) -> None:
    settings = families.base(write_text(tmp_path), "tokens=640") | {"model": bert}
    found = probe.estimate([settings], RESOURCES)
    assert [line.partition(";")[0] for line in plan._not_counted(found)] == [
        "  evaluation.lm_tokens=256: without effect: small is an encoder, which predicts no next token"]


def test_a_file_of_an_encoder_that_lacks_a_block_is_refused(bert: dict) -> None:
    folder = Path(bert["source"]["hub"])
    before = (folder / "model.safetensors").read_bytes()
    model_folders.weights(folder, lambda w: {key: x for key, x in w.items() if "layer.2." not in key})
    with pytest.raises(UsageError, match=r"which lacks encoder\.layer\.2\."):
        load(bert)
    (folder / "model.safetensors").write_bytes(before)
