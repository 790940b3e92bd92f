"""A language model with shuffled weights: what changes place and what stays."""
import pytest
import torch
from omegaconf import OmegaConf
from small import CONF, job, tiny

from saesweep.config.check import check_model
from saesweep.errors import UsageError
from saesweep.lm import models


def loaded(seed):
    model = OmegaConf.to_container(OmegaConf.load(CONF / "model/tiny.yaml"))
    model["source"]["shuffle"] = seed
    check_model(model)
    return models.load(model).module


@pytest.fixture(scope="module")
def pairs():
    """By name each weight as it is, and shuffled."""
    before, after = (dict(module.named_parameters()) for module in (tiny().module, loaded(0)))
    assert before.keys() == after.keys()
    return {name: (before[name], after[name]) for name in before}


def test_the_entries_of_each_matrix_of_the_blocks_change_places(pairs):
    matrices = {name: pair for name, pair in pairs.items() if pair[0].ndim > 1 and "embed" not in name}
    assert len(matrices) == 3 * 7
    for one, other in matrices.values():
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
        assert (one == other).float().mean() < 0.05


def test_embeddings_and_norms_stay(pairs):
    rest = [name for name, pair in pairs.items() if pair[0].ndim == 1 or "embed" in name]
    assert any("embed" in name for name in rest) and any("norm" in name for name in rest)
    assert all(torch.equal(*pairs[name]) for name in rest)


def test_the_seed_determines_the_places(pairs):
    name = next(name for name, pair in pairs.items() if pair[0].ndim > 1 and "embed" not in name)
    again, other = (dict(loaded(seed).named_parameters())[name] for seed in (0, 1))
    assert torch.equal(again, pairs[name][1]) and not torch.equal(other, again)


def test_it_is_a_key_of_the_source_on_the_command_line(tmp_path):
    assert job(None, "model=tiny", "+model.source.shuffle=3")["model"]["source"]["shuffle"] == 3
    with pytest.raises(UsageError, match=r"model.source.shuffle=-1: must be at least 0"):
        loaded(-1)
