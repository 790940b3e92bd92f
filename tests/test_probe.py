"""What the plan finds out by a few steps of each kind of SAE: an architecture of one's own that would end in wrong numbers."""
import json
import random
import re

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


class Shrunk(JumpReLU):
    """Its values are those above the threshold, which SAELens' jumprelu does not take off."""

    def activate(self, pi):
        return torch.relu(pi - self.threshold)


class Later(JumpReLU):
    """Active elsewhere than its margin says."""

    saved_as = "later"

    def activate(self, pi):
        return pi * (pi > 1.5 * self.threshold)


class Misspelt(TopK):
    def step(self, x, coefficient, progress):
        return self.preactivation(x)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.setenv("SAESWEEP_PACKAGES", "test_probe")
    text = write_text(tmp_path)

    def of(arch, target=None, **more):
        cfg = job(text, f"arch={arch}")
        return estimate([cfg | {"arch": cfg["arch"] | ({"_target_": target} if target else {}) | more}], RESOURCES)

    return of


def test_an_architecture_that_saelens_would_misread_is_refused(asked):
    with pytest.raises(UsageError, match=r"arch=jumprelu: saved_as=jumprelu, but SAELens' jumprelu encodes otherwise"):
        asked("jumprelu", "test_probe.Shrunk")


def test_an_architecture_whose_margin_was_forgotten_is_refused(asked):
    with pytest.raises(UsageError, match=r"arch=jumprelu: .*`margin` and `raise_thresholds_`"):
        asked("jumprelu", "test_probe.Later")


def test_a_penalty_without_the_numbers_that_move_its_coefficient_is_refused(asked):
    with pytest.raises(UsageError, match=r"arch\.control=null: jumprelu has a sparsity loss"):
        asked("jumprelu", control=None)
    assert asked("topk")["seconds"] > 0


def test_a_bug_in_a_step_is_told_with_the_architecture_that_it_is_in(asked):
    with pytest.raises(AttributeError) as error:
        asked("topk", "test_probe.Misspelt")
    assert "arch=topk" in error.value.__notes__[0]


def test_where_there_is_no_gpu_a_training_on_one_is_refused_before_anything_is_read(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match=r"trainer=gpu.*no CUDA GPU"):
        estimate([job(write_text(tmp_path), "trainer=gpu")], RESOURCES)


@pytest.mark.parametrize("arch", ARCHS)
def test_one_dimension_in_which_latents_are_equal_to_start_with_is_no_inconsistency(arch):
    assert estimate([job(None, f"arch={arch}", "model.source.synthetic.d_in=1")], RESOURCES)["d_in"] == [1]


class Stuck(torch.nn.Module):
    """Writes one value at every position."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("value, parts", [
    (0.25, ["site=mlp layer=0: the activations at ", "do not vary over ", "(constant)", "choose another site"]),
    (float("inf"), ["site=mlp layer=0: the activations at ", "are not finite on "]),
])
def test_a_place_with_nothing_to_train_on_is_refused_before_a_step_is_timed(tmp_path, monkeypatch, value, parts):
    lm = models.load(job(None, "model=tiny")["model"])
    lm.module.model.layers[0].post_feedforward_layernorm = Stuck(value)
    monkeypatch.setattr(Resources, "language_model", lambda self, job: lm)
    with pytest.raises(UsageError) as error:
        estimate([job(write_text(tmp_path), "arch=topk", "site=mlp", "layer=0")], RESOURCES)
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e25])
def test_activations_that_float32_cannot_square_are_refused_by_their_site_and_not_by_the_architecture(size):
    rows = {point_of(job(None)): size * torch.randn(64, 16)}
    with pytest.raises(UsageError, match=r"site=\w+ layer=\d+: the activations at .* whose square leaves the range of float32"):
        probe._require_usable([job(None, "arch=topk")], rows)


@pytest.mark.parametrize("size", [1e-15, 1e15])
@pytest.mark.parametrize("arch", ARCHS)
def test_small_and_large_activations_are_usable(size, arch):
    asked, x = job(None, f"arch={arch}"), size * torch.randn(64, 16)
    probe._require_usable([asked], {point_of(asked): x})
    assert probe._probe_step(asked, x) > 0


@pytest.mark.parametrize("word", ["width=1000000000000", "model.source.synthetic.features=1000000000000",
                                  "batch_tokens=1000000000000"])
def test_what_no_memory_holds_is_refused_before_it_is_asked_for(word):
    with pytest.raises(UsageError, match=rf"^{word}: takes [\d,]+ GB, and there are [\d,]+ GB of memory here; lower it"):
        estimate([job(None, "arch=topk", word, "tokens=2000000000000")], RESOURCES)


def short_documents(folder, long=0):
    """A text of documents of 12 tokens, and so many of a thousand."""
    draw, file = random.Random(0), folder / "short.jsonl"
    texts = ["".join(draw.choices("etaoinshr", k=12)) for _ in range(3000)]
    texts += ["".join(draw.choices("etaoinshr", k=1000)) for _ in range(long)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def test_the_plan_counts_what_is_padding(tmp_path, monkeypatch):
    """A position takes a second: a token as long as the positions that are read for it."""
    def a_second(lm, points, blocks, context):
        return blocks * context, timed(lm, points, 1, context)[1]

    monkeypatch.setattr(probe, "timed_forward", a_second)
    monkeypatch.setattr(probe, "_step_seconds", lambda *_: 0.0)

    def seconds(text):
        clear_text_caches()
        found = estimate([job(text, "arch=topk", "context=256", "tokens=6400", "evaluation.lm_tokens=0", "text.repeat=true",
                              "activations.forward_tokens=8192")], RESOURCES)
        return found["seconds"] / (6400 + 512 + 512)

    assert seconds(short_documents(tmp_path)) == pytest.approx(13 / 12)  # BOS alone, for blocks are cut to the longest
    assert seconds(short_documents(tmp_path, long=100)) > 3  # some long ones, among which the others are padded


def test_where_most_is_padding_a_smaller_context_is_named(tmp_path, caplog):
    overrides = ("arch=topk", "context=256", "text.repeat=true", "activations.forward_tokens=8192")
    estimate([job(short_documents(tmp_path), *overrides)], RESOURCES)
    assert "full" not in caplog.text
    clear_text_caches()
    estimate([job(short_documents(tmp_path, long=100), *overrides)], RESOURCES)
    found = re.search(r"context=256 are (\d+)% full, documents have 12 tokens in the median: context=16 would", caplog.text)
    assert found and int(found[1]) < 50
