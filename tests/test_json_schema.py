"""`python train.py --schema`: the files of conf/ and the composed config are valid, and mistakes are not."""
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import warm
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf
from standin.cli import ENV, ROOT, composed

from saesweep.config.json_schema import json_schema, print_schema

GROUPS = ("model", "site", "text", "cache", "arch", "trainer", "logger", "study", "explainer")
FILES = [path for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The printed schema. The command imports torch and Lightning, so it runs once for all tests."""
    folder = tmp_path_factory.mktemp("empty")
    command = [sys.executable, str(ROOT / "train.py"), "--schema"]
    done = warm.run(command, folder, ENV)
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def config() -> dict:
    return plain(composed(always=()))


def plain(node) -> dict:
    return OmegaConf.to_container(node, resolve=False)


def errors(document: dict, node: dict, group: str | None = None) -> list:
    """The errors of a file of the group by the schema's fragment for it, or of a config without a group."""
    schema = document if group is None else {"$ref": f"#/$defs/{group}", "$defs": document["$defs"]}
    return list(Draft202012Validator(schema).iter_errors(node))


def changed(node: dict, key: str, value) -> dict:
    config = OmegaConf.create(deepcopy(node))
    OmegaConf.update(config, key, value, force_add=True)
    return plain(config)


def test_the_command_prints_a_valid_schema_with_an_entry_per_group(document):
    assert document["$defs"].keys() == {*GROUPS, "unresolved"}
    assert Draft202012Validator.META_SCHEMA["$id"] == document["$schema"]
    Draft202012Validator.check_schema(document)


@pytest.mark.process
def test_a_reader_that_wants_only_the_beginning_gets_it_without_a_traceback():
    words = [sys.executable, str(ROOT / "train.py"), "--schema"]
    with warm.popen(words, ROOT, ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout.readline() == "{\n"
        program.stdout.close()
        assert program.stderr.read() == "" and program.wait() == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_of_a_group_is_valid_and_an_unknown_key_makes_it_invalid(document, path: Path):
    node, group = plain(OmegaConf.load(path)), path.parent.name
    assert errors(document, node, group) == []
    mistake = {"_target_": 3} if path.stem == "tensorboard" else {"typo": 1}  # its constructor takes **kwargs
    assert errors(document, node | mistake, group)


def test_train_yaml_is_valid(document):
    assert errors(document, plain(OmegaConf.load(ROOT / "conf/train.yaml"))) == []


@pytest.mark.parametrize("resolve", [True, False])
def test_the_composed_default_config_is_valid(document, resolve):
    assert errors(document, OmegaConf.to_container(composed(always=()), resolve=resolve)) == []


@pytest.mark.parametrize(
    "key, value",
    [
        ("tokens", "many"), ("tokens", -1), ("tokens", 1.5), ("tokens", None), ("tokns", 5), ("plan", "yes"),
        ("sparsity", 0.001), ("context", 1), ("layer", "{layer}"), ("evaluation.lm_tokens", -1), ("cache.folder", " "),
        ("activations", 3), ("activations.centre", True), ("activations.forward_tokens", "all"), ("activations.max_norm", 0),
        ("arch.bandwidth", 0), ("arch.warm_start", 1.5), ("arch.k_aux", 3), ("arch._target_", "saesweep.arch.topk.TopK"),
        ("arch.optimizer.betas", [0.9]), ("arch.optimizer.betas", [0.9, 1.0]), ("arch.optimizer.momentum", 0.9),
        ("arch.control.freeze", 2), ("model.dtype", "fp16"), ("model.source.hub", "gpt2"), ("model.source.typo", 1),
        ("model.sites.resid.tensor", "middle"), ("text.kind", "foo"), ("text.glob", "*.txt"), ("site.typo", 1),
        ("trainer.devices", "auto"), ("trainer.precison", "32-true"), ("trainer.max_steps", 10), ("logger.wandb.mode", "on"),
        ("logger.csv", 3), ("study.features", 3), ("study", {"name": "rules", "features": 3}), ("study", 3),
        ("explainer", {"name": "openai", "model": "mine"}), ("explainer.name", "mine"),
    ],
)
def test_wrong_types_unknown_keys_and_numbers_out_of_range_are_invalid(document, config, key, value):
    assert errors(document, changed(config, key, value))


@pytest.mark.parametrize(
    "key, value",
    [
        ("tokens", "${batch_tokens}"), ("tokens", "???"), ("tokens", "300_000"), ("tokens", 1e6),
        ("activations.max_norm", None), ("activations.forward_tokens", "auto"), ("arch.coefficient", 6e-4),
        ("arch.bandwidth", "${arch.init_threshold}"), ("arch.optimizer.clip", None), ("trainer.log_every_n_steps", 5),
        ("logger.wandb", None), ("logger", None),
    ],
)
def test_interpolations_and_values_that_the_check_allows_are_valid(document, config, key, value):
    assert errors(document, changed(config, key, value)) == []


@pytest.mark.parametrize("key", ["tokens", "evaluation.tokens", "arch.bandwidth", "arch.optimizer.lr", "model.source.parts"])
def test_a_config_without_a_required_key_is_invalid(document, config, key):
    parent, _, last = key.rpartition(".")
    less = OmegaConf.create(deepcopy(config))
    del (OmegaConf.select(less, parent) if parent else less)[last]
    assert errors(document, plain(less))


def test_a_file_with_defaults_need_not_have_all_keys(document):
    file = {"name": "mine", "optimizer": {"lr": 1e-3}}
    assert errors(document, file, "arch")
    assert errors(document, file | {"defaults": ["jumprelu", "_self_"]}, "arch") == []
    assert errors(document, file | {"defaults": ["jumprelu", "_self_"], "optimizer": {"lr": 0}}, "arch")


def test_the_description_of_a_key_is_its_comment_in_the_yaml(document):
    (train,) = document["anyOf"]
    assert train["properties"]["tokens"]["description"].startswith("training tokens")
    assert train["properties"]["activations"]["anyOf"][0]["properties"]["center"]["description"].startswith("subtract the mean")
    texts = {node["properties"]["kind"]["const"]: node["properties"] for node in document["$defs"]["text"]["anyOf"]}
    assert texts["files"]["held_out"]["description"] != texts["hub"]["held_out"]["description"]


def test_a_users_architectures_are_in_the_schema(tmp_path):
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch/mine.yaml").write_text("_target_: saesweep.arch.relu.ReLU  # mine\n")
    (entry,) = json_schema(tmp_path)["$defs"]["arch"]["anyOf"]
    assert entry["properties"]["_target_"]["const"] == "saesweep.arch.relu.ReLU"


def test_a_target_that_cannot_be_imported_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch/mine.yaml").write_text("_target_: saesweep.arch.mine.Mine\n")
    with pytest.raises(SystemExit, match=r"arch\._target_=saesweep\.arch\.mine\.Mine: cannot be imported"):
        print_schema(tmp_path)
    assert capsys.readouterr().out == ""
