"""The plan's probe: it takes a few steps with each kind of SAE, and refuses architectures and data that cannot be trained."""
import json
import random

import pytest
import torch
from small import ARCHS, RESOURCES, clear_text_caches, job, write_text

from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.topk import TopK
from saesweep.data.forward_size import timed_forward as timed
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.lm import models
from saesweep.sweep import probe
from saesweep.sweep.inputs import point_of
from saesweep.sweep.probe import estimate
from saesweep.sweep.probe_step import Probed, probe_step


class Shrunk(JumpReLU):
    """It subtracts the threshold from its latents, unlike SAELens' jumprelu."""

    def activate(self, pi):
        return torch.relu(pi - self.threshold)


class Inconsistent(JumpReLU):
    """Its latents are active at other pre-activations than its margin states."""

    saved_as = "inconsistent"

    def activate(self, pi):
        return pi * (pi > 1.5 * self.threshold)


class Misspelt(TopK):
    def step(self, x, coefficient, progress):
        return self.preactivation(x)


@pytest.fixture
def probed(tmp_path, monkeypatch):
    monkeypatch.setenv("SAESWEEP_PACKAGES", "test_probe")
    text = write_text(tmp_path)

    def of(arch, target=None, **more):
        cfg = job(text, f"arch={arch}")
        return estimate([cfg | {"arch": cfg["arch"] | ({"_target_": target} if target else {}) | more}], RESOURCES)

    return of


@pytest.mark.parametrize("module, said", [
    ("model.layers.{layer}.atn", "no module 'model.layers.1.atn'; the nearest are .*layers.{layer}.self_attn"),
    ("model.layers.9{layer}", "no module 'model.layers.91'; only other layers have it: model.layers.0, "),
])
def test_a_path_that_leads_to_no_module_is_refused_before_weights_are_loaded(module, said, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load", None)
    with pytest.raises(UsageError, match="model.sites: Gemma3ForCausalLM has " + said):
        estimate([job(write_text(tmp_path), f"model.sites.resid.module='{module}'")], Resources())


def test_an_architecture_that_encodes_differently_in_saelens_is_refused(probed):
    with pytest.raises(UsageError, match=r"arch=jumprelu: saved_as=jumprelu, but SAELens' jumprelu encodes otherwise"):
        probed("jumprelu", "test_probe.Shrunk")


def test_an_architecture_whose_margin_is_inconsistent_is_refused(probed):
    with pytest.raises(UsageError, match=r"arch=jumprelu: .*`margin` and `raise_thresholds_`"):
        probed("jumprelu", "test_probe.Inconsistent")


def test_a_sparsity_loss_without_the_settings_of_the_controller_is_refused(probed):
    with pytest.raises(UsageError, match=r"arch\.control=null: jumprelu has a sparsity loss"):
        probed("jumprelu", control=None)
    assert probed("topk")["seconds"] > 0


def test_a_bug_in_a_step_is_raised_with_the_name_of_the_architecture(probed):
    with pytest.raises(AttributeError) as error:
        probed("topk", "test_probe.Misspelt")
    assert "arch=topk" in error.value.__notes__[0]


def test_a_training_on_a_gpu_is_refused_if_there_is_none(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=r"trainer=gpu.*no CUDA GPU"):
        estimate([job(write_text(tmp_path), "trainer=gpu")], RESOURCES)


@pytest.mark.parametrize("arch", ARCHS)
def test_activations_of_one_dimension_pass(arch):
    assert estimate([job(None, f"arch={arch}", "model.source.synthetic.d_in=1")], RESOURCES)["d_in"] == [1]


class ConstantOutput(torch.nn.Module):
    """Its output has one value everywhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("value, parts", [
    (0.25, ["site=mlp layer=0: the activations at ", "do not vary over ", "(constant)", "choose another site"]),
    (float("inf"), ["site=mlp layer=0: the activations at ", "are not finite on "]),
])
def test_constant_or_infinite_activations_are_refused_before_a_step_is_timed(tmp_path, monkeypatch, value, parts):
    lm = models.load(job(None, "model=tiny")["model"])
    lm.module.model.layers[0].post_feedforward_layernorm = ConstantOutput(value)
    monkeypatch.setattr(Resources, "language_model", lambda self, job: lm)
    with pytest.raises(UsageError) as error:
        estimate([job(write_text(tmp_path), "arch=topk", "site=mlp", "layer=0")], RESOURCES)
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e25])
def test_activations_whose_square_leaves_float32_are_refused_by_their_site(size):
    rows = {point_of(job(None)): size * torch.randn(64, 16)}
    with pytest.raises(UsageError, match=r"site=\w+ layer=\d+: the activations at .* whose square leaves the range of float32"):
        probe._require_usable([job(None, "arch=topk")], rows)


@pytest.mark.parametrize("size", [1e-15, 1e15])
@pytest.mark.parametrize("arch", ARCHS)
def test_small_and_large_activations_pass(size, arch):
    cfg, x = job(None, f"arch={arch}"), size * torch.randn(64, 16)
    statistics, _ = probe._require_usable([cfg], {point_of(cfg): x})
    assert probe_step(cfg, {point_of(cfg): x}, statistics[point_of(cfg)], point_of(cfg)).seconds > 0


@pytest.mark.parametrize("word", ["width=1000000000000", "model.source.synthetic.features=1000000000000",
                                  "batch_tokens=1000000000000"])
def test_sizes_that_do_not_fit_into_memory_are_refused_before_allocation(word):
    with pytest.raises(UsageError, match=rf"^{word}: takes [\d,]+ GB, and there are [\d,]+ GB of memory here; lower it"):
        estimate([job(None, "arch=topk", word, "tokens=2000000000000")], RESOURCES)


@pytest.mark.slow
def test_blocks_longer_than_the_pass_that_is_timed_are_planned_with_one_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "PREDICTED", 1)
    found = estimate([job(write_text(tmp_path), "arch=topk", "evaluation.forward_tokens=4")], RESOURCES)
    assert found["seconds"] > 0


@pytest.mark.slow
def test_the_planned_time_includes_padding(tmp_path, monkeypatch):
    """A position takes a second, so the time per token is the number of positions per token."""
    def one_second_per_position(lm, points, blocks, context):
        return blocks * context, timed(lm, points, 1, context)[1]

    monkeypatch.setattr(probe, "timed_forward", one_second_per_position)
    monkeypatch.setattr(probe, "probe_step", lambda *_: Probed(0.0, 0, 0))
    draw, file = random.Random(0), tmp_path / "short.jsonl"
    texts = ["".join(draw.choices("etaoinshr", k=12)) for _ in range(3000)]
    texts += ["".join(draw.choices("etaoinshr", k=1000)) for _ in range(100)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def positions_per_token(*words):
        clear_text_caches()
        words += ("arch=topk", "context=256", "tokens=6400", "evaluation.lm_tokens=0", "text.repeat=true")
        found = estimate([job(str(file), "activations.forward_tokens=8192", *words)], RESOURCES)
        return found["seconds"] / (6400 + 512 + 512)

    assert 13 / 12 <= positions_per_token("activations.window=65536") < 1.25  # BOS; blocks of like length
    assert positions_per_token("activations.window=256") > 2  # short documents beside long ones
