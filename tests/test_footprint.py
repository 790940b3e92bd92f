"""The memory and disk of a group as the plan counts them."""
import pytest
import torch
from small import ARCHS, RESOURCES, job, tiny, untrained, write_text

from saesweep.arch.execution import DENSE_COPIES
from saesweep.arch.topk import TopK
from saesweep.evaluation.subject import AT_A_TIME_ON_CPU
from saesweep.runtime.allocations import peak_bytes, with_peak_bytes
from saesweep.sweep import footprint, plan
from saesweep.sweep.footprint import Measured, Place, assigned, places, sae_bytes
from saesweep.sweep.inputs import point_of
from saesweep.sweep.probe import _require_usable, estimate
from saesweep.sweep.probe_step import _dense_row_bytes, probe_step
from saesweep.training.build import build

GB = 10**9
FOUND = Measured(
    process=7, model=1000, pool=10, forward=300, row=2, statistics=500, steps=[40, 60], rows_normalised=12, predicting=900,
    dense=700)


def test_the_bytes_of_the_tensors_that_are_alive_together_are_counted():
    before = torch.zeros(1000)

    def work():
        x = before.view(10, 100) * 2  # 4,000 bytes; the view takes none
        y = x.sum(0)  # 400
        del x
        return y.double().exp_()  # 800

    found, held = with_peak_bytes(work)
    assert found.shape == (100,) and held == peak_bytes(work) == 4400
    assert peak_bytes(lambda: before.add_(1)) == 0


def test_gradients_and_what_autograd_keeps_are_counted():
    w = torch.ones(1000, requires_grad=True)
    assert 3 * 4000 <= peak_bytes(lambda: (w.exp() * w).sum().backward()) <= 5 * 4000


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["topk", "jumprelu"])
def test_a_step_of_several_saes_holds_what_a_step_of_one_does(arch):
    def held(count):
        module, stream, _ = untrained([job(None, f"arch={arch}", "width=1024", "log_tokens=3200")] * count)
        first, second, *_ = stream
        module.training_step(first, 0)  # makes the moments
        return peak_bytes(lambda: module.training_step(second, 1))

    assert held(4) < 1.05 * held(1)


def test_an_sae_takes_weights_moments_and_counters():
    params = 2 * 16 * 96 + 96 + 16
    assert sae_bytes(job(None, "arch=topk"), 16) == (params, 12 * params + 8 * 96 + 8)
    assert sae_bytes(job(None, "arch=topk", "trainer.precision=64-true"), 16) == (params, 24 * params + 8 * 96 + 8)
    on_gpu = 2 * 16 * 96 + 4 * 96  # W_enc in bf16, and norms
    assert sae_bytes(job(None, "arch=topk", "trainer=gpu"), 16) == (params, 12 * params + on_gpu + 8 * 96 + 8)


@pytest.mark.parametrize("arch, units", [("jumprelu", 7.5), ("gated", 8.5), ("relu", 4.25)])
def test_a_dense_step_takes_several_copies_of_the_latents(arch, units):
    words = (f"arch={arch}", "width=4096", *(["arch.warm_start=0"] if arch == "jumprelu" else []))
    assert _dense_row_bytes(job(None, *words)) == pytest.approx(units * 4 * 4096, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("dense", ["true", "false"])
def test_of_a_dense_step_in_pieces_a_piece_is_counted(monkeypatch, dense):
    cfg, x = job(None, "arch=relu", "width=4096", f"dense={dense}"), torch.randn(64, 4)
    point = point_of(cfg)
    statistics, _ = _require_usable([cfg], {point: x})
    whole = probe_step(cfg, {point: x}, statistics[point], point).step

    def small(*args):
        sae = build(*args)
        sae.execution.dense_bytes = 8 * DENSE_COPIES * 4 * 4096
        return sae

    monkeypatch.setattr("saesweep.sweep.probe_step.build", small)
    piece = probe_step(cfg, {point: x}, statistics[point], point).step
    assert whole - piece == pytest.approx(56 * _dense_row_bytes(cfg), rel=0.15)  # a listed step is a little more than a piece


def phases(*words, saes=(100, 200), found=FOUND):
    jobs = [job("no.jsonl", "arch=topk", *words) for _ in saes]  # 3,200 tokens, windows of 1,024, context 32
    (place,) = places(jobs, saes, tiny().tokenizer, found)
    assert place.name == "memory" and place.there > GB
    return {name: {part: size for part, size in parts.items() if part != "process"} for name, parts in place.phases.items()}


def test_every_phase_holds_the_model_and_what_it_works_on():
    rows = 32 * 31  # of 32 blocks, without BOS
    assert phases() == {
        "while the first window is read": {"language model": 1000, "text": 20, "window": 2 * 2 * rows, "statistics": 500},
        "while a window is read": {"language model": 1000, "text": 20, "SAEs": 300, "window": 2 * 2 * rows},
        "in a step": {"language model": 1000, "text": 10, "SAEs": 300, "window": 2 * rows, "step": 60},
        "at calibration": {"language model": 1000, "text": 10, "SAEs": 300, "held-out rows": 512 * (2 * 2 + 12)},
        "in the evaluation": {"language model": 1000, "text": 10, "SAEs": 300, "pass with predictions": 900},
    }


def test_a_single_window_is_read_before_there_are_saes():
    assert "SAEs" not in phases("tokens=640")["while a window is read"]


def test_the_larger_of_a_second_copy_and_a_forward_pass_is_counted():
    found = phases(found=FOUND._replace(forward=5000))["while a window is read"]
    assert found == {"language model": 1000, "text": 20, "SAEs": 300, "window": 2 * 32 * 31, "forward pass": 5000}


def test_ranks_on_a_cpu_share_the_memory_and_those_with_own_saes_hold_a_part_of_them():
    shared = ("trainer=sweep_parallel", "trainer.accelerator=cpu", "trainer.devices=2")
    assert phases(*shared)["in a step"]["SAEs"] == 2 * 200 and phases(*shared)["in a step"]["language model"] == 2 * 1000
    assert phases("trainer=ddp_sim")["in a step"]["SAEs"] == 2 * 300
    assert assigned([4, 1, 2, 2], 2) == [[0, 1], [2, 3]]


def place(there, **parts):
    return Place("memory", {"in a step": parts, "at calibration": {"SAEs": 1}}, there)


def test_what_does_not_fit_is_said_with_what_to_change():
    assert place(100, SAEs=60, window=40).problem(6) is None
    assert place(80, SAEs=60, window=40).problem(6) == (
        "about 4 of the 6 SAEs fit at a time: sweep fewer values in a command, or give them more devices with "
        "trainer=sweep_parallel")
    assert place(80, SAEs=30, window=60).problem(6) == (
        "in a step it takes more memory than there is: lower activations.window")
    (found,) = places([job(None, "arch=topk")], [1], None, FOUND)
    parts = {part for phase in found.phases.values() for part in phase} | {"pass with predictions", "forward pass", "drawing"}
    assert parts <= footprint.LOWER.keys() | {"process", "SAEs"}


def test_checkpoints_on_disk_are_two_for_each_sae_and_a_draft(tmp_path):
    def parts(*words, seconds=0.0):
        jobs = [job(None, "arch=topk", *words)] * 2
        return footprint.disk(jobs, tmp_path / "new" / "sweep", [10, 20], [120, 240], 5, seconds).phases[""]

    assert parts("save_tokens=1000") == {"results": 4 * 30, "checkpoints": 2 * 360 + 240}
    assert parts() == {"results": 4 * 30, "checkpoints": 360 + 240}  # only that of the end
    assert parts("save_minutes=10", seconds=1300)["checkpoints"] == 2 * 360 + 240
    assert parts("cache.folder=/x")["activations"] == 5 * (3200 + 512 + 512)


def test_the_plan_shows_the_peak_its_parts_and_the_other_phases():
    found = Place("memory", {"in a step": {"process": 2 * GB, "SAEs": GB}, "at calibration": {"process": 10**8}}, 4 * GB)
    assert plan._places([found], 1) == ["  memory: 3 GB in a step, of 4 GB: process 2 GB, SAEs 1 GB; 100 MB at calibration"]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_the_probe_measures_every_architecture(tmp_path, arch):
    found = estimate([job(write_text(tmp_path), f"arch={arch}", "evaluation.lm_tokens=0")], RESOURCES, tmp_path)
    memory, disk = found["places"]
    matrices = 2 * 4 * 96 * found["d_in"][0]
    assert memory.phases["in a step"]["step"] > matrices and disk.phases[""]["results"] > matrices
    assert memory.phases["in the evaluation"]["dense latents"] > AT_A_TIME_ON_CPU * 4 * 96
    assert memory.phases["while a window is read"]["language model"] == memory.phases["in a step"]["language model"] > 0


class Failing(TopK):
    """It can be trained, and not evaluated."""

    def encode(self, x):
        raise ZeroDivisionError


def test_the_plan_says_that_latents_are_not_counted_of_an_sae_whose_evaluation_fails(monkeypatch):
    monkeypatch.setenv("SAESWEEP_PACKAGES", "test_footprint")
    jobs = [job(None, "arch=topk", "evaluation.lm_tokens=0", *words) for words in (["name=a"], ["name=b", "sparsity=5"])]
    jobs[1]["arch"]["_target_"] = "test_footprint.Failing"
    found = estimate(jobs, RESOURCES)
    assert found["places"][0].phases["in the evaluation"]["dense latents"] > 0
    assert plan._not_counted(found) == ["  not counted: the dense latents of 1 SAE whose evaluation fails"]
    assert plan._not_counted(estimate(jobs[:1], RESOURCES)) == []
