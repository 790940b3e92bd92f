"""Training and evaluation on a mock or real GPU: every tensor is on its device, and the host rarely synchronises.

What CPU and GPU compute differs in the last bits on a real GPU; the same training twice on one GPU has the same bits.
"""
import math
from itertools import pairwise

import pytest
import torch
from benchmarks.step import ours
from mock_gpu import REAL, gpu
from small import job, tiny, train_group, trained, untrained, write_text

from saesweep.arch import latents
from saesweep.arch.ops import entries, plain, precision
from saesweep.arch.ops.room import Room
from saesweep.data.harvest import harvest
from saesweep.data.resources import Resources
from saesweep.lm import models
from saesweep.lm.hooks import HookPoint
from saesweep.storage.checkpoints import cohorts
from saesweep.sweep.probe import estimate
from saesweep.training import optimizer

pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
pytestmark = [pytest.mark.slow, pytest.mark.kernels]
SHORT = ("trainer=gpu", "tokens=320", "log_tokens=64")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture
def quick(monkeypatch):
    """Replaces the Triton kernels, whose interpreter is slow, with PyTorch's operations."""
    if not REAL:
        for module in (latents, optimizer):
            monkeypatch.setattr(module, "ops_for", lambda x: plain)


def two_steps(arch, how, device):
    """The SAE's weights after two steps, and the number of synchronisations in the second; how: list, dense or room.

    Where a gradient cancels to its rounding error, Adam's usual eps would make that error a step of full length.
    """
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    x /= x.square().sum(1).mean().sqrt()
    with gpu() as waits:
        x = x.to(device)
        member, step = ours(arch, x, 40, 3, how == "dense", eps=1e-4)
        member.sae.execution.room = Room() if how == "room" else None
        step(x)
        waits.clear()
        step(x)
        count = len(waits)
        return {name: tensor.cpu() for name, tensor in member.sae.state_dict().items()}, count


MAX_WAITS = {  # for the length of a list; of a selection over the batch, for how many are positive too
    "relu": 1, "gated": 1, "jumprelu": 1, "topk": 0, "batchtopk": 2,
    "jumprelu_qf": 1, "paper_gemma_scope_2": 1, "matryoshka": 2, "hierarchical_topk": 0,
}


CASES = [*((arch, "list") for arch in MAX_WAITS), ("jumprelu", "dense"), ("jumprelu", "room"), ("gated", "room")]


@pytest.mark.parametrize(("arch", "how"), CASES)
def test_a_step_on_the_gpu_equals_one_on_the_cpu_and_rarely_synchronises(arch, how, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 8)
    monkeypatch.setattr(precision, "DENSE", "highest")  # TF32 is not as close
    found, waits = two_steps(arch, how, "cuda")
    wanted, _ = two_steps(arch, how, "cpu")
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert waits <= (0 if how == "room" else MAX_WAITS[arch])


def test_a_harvest_synchronises_only_in_transformers_check_for_packed_sequences():
    lm, point = tiny(), HookPoint("model.layers.1", "output")
    tokens = torch.randint(3, 200, (2, 16))
    tokens[1, 9:] = -1
    wanted = harvest(lm, [point], tokens)[point]
    with gpu() as waits:
        lm = models.load(job(None, "model=tiny")["model"] | {"dtype": "float32"}, "cuda")
        waits.clear()
        found = harvest(lm, [point], tokens)[point]
        assert found.device.type == "cuda" and len(waits) <= 2
        error = float((found.cpu() - wanted).norm() / wanted.norm())
        assert error < 1e-5 if REAL else error == 0, "a real GPU adds in another order"


@pytest.mark.parametrize("how", ["harvested", "from disk", "synthetic"])
def test_a_group_is_trained_and_evaluated_on_a_gpu(how, text, tmp_path, quick):
    source = ["cache=disk", f"cache.folder={tmp_path}/cache"] if how == "from disk" else []
    cfgs = [job(None if how == "synthetic" else text, f"arch={arch}", *SHORT, *source) for arch in ("jumprelu", "topk")]
    with gpu():
        results = train_group(cfgs, [tmp_path / "0", tmp_path / "1"])
    for numbers in results:
        assert abs(numbers["l0"] / 4 - 1) < 0.1 and 0 < numbers["fvu"] < 1, numbers
        assert how == "synthetic" or math.isfinite(numbers["delta_loss"])


def test_a_training_on_a_gpu_resumes_from_its_checkpoint(text, tmp_path, quick):
    jobs = [job(text, f"arch={arch}", *SHORT, "save_tokens=128") for arch in ("gated", "batchtopk")]

    def killed(module):
        if module.steps_done == 3:
            raise ZeroDivisionError

    with gpu():
        undisturbed = trained(jobs, tmp_path / "undisturbed")
        with pytest.raises(ZeroDivisionError):
            trained(jobs, tmp_path / "killed", progress=killed)
        assert [c.step for c in cohorts([tmp_path / "killed/0", tmp_path / "killed/1"])] == [2]
        resumed = trained(jobs, tmp_path / "killed")
    wanted, found = (module.state_dict() for module in (undisturbed, resumed))
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


# a window has four micro-batches and three batches
WINDOWS = "activations={window: 256, statistics: 128, documents_per_pool: 8, forward_tokens: 64}"


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("passes", [1, 2])
def test_prefetching_does_not_change_the_saes_also_after_a_resume(text, tmp_path, quick, passes):
    """Prefetching uses a stream of its own; the mock GPU raises at a missing wait."""
    more = (*SHORT, "save_tokens=192", WINDOWS, f"activations.passes={passes}")
    jobs = [job(text, f"arch={arch}", *more) | {"tokens": 768} for arch in ("jumprelu", "topk")]
    ahead = [one | {"read_ahead": True} for one in jobs]

    def killed(module):
        if module.steps_done == 5:
            raise ZeroDivisionError

    with gpu():
        wanted = trained(jobs, tmp_path / "without").state_dict()
        found = trained(ahead, tmp_path / "ahead").state_dict()
        with pytest.raises(ZeroDivisionError):
            trained(ahead, tmp_path / "killed", progress=killed)
        resumed = trained(ahead, tmp_path / "killed").state_dict()
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor) and torch.equal(resumed[name], tensor), name


def test_batches_of_a_window_are_handed_out_without_a_synchronisation(text, quick):
    """Also where the statistics are from a checkpoint, on the CPU."""
    with gpu() as waits:
        one = job(text, "arch=topk", *SHORT, WINDOWS) | {"tokens": 1280}
        _, stream, _ = untrained([one])
        stream.resume(stream.position, {point: x.on(torch.device("cpu")) for point, x in stream.statistics.items()})
        batches = iter(stream)
        first = next(batches)
        waits.clear()
        second, third = next(batches), next(batches)
        assert not waits
        assert all(x.is_cuda and 0 < len(x) <= 64 for batch in (first, second, third) for x in batch.values())


def test_prefetching_is_spread_over_the_batches_of_a_window(text, quick):
    with gpu():
        one = job(text, "arch=topk", *SHORT, WINDOWS) | {"tokens": 1280, "read_ahead": True}
        _, stream, inputs = untrained([one])
        where = []
        ahead = stream.ahead.stream
        inputs.source.lm.module.register_forward_pre_hook(lambda *_: where.append(torch.cuda.current_stream() == ahead))
        read = [0, *(len(where) for _ in zip(range(8), stream, strict=False))]
    # micro-batches per batch; of 64 positions, some of them padding
    assert all(where) and all(1 <= after - before <= 3 for before, after in pairwise(read)), read


def test_a_plan_of_a_training_on_a_gpu_has_its_time_and_memory(text, quick):
    with gpu():
        found, alone, graphs = (estimate([job(text, "arch=jumprelu", *SHORT, *more)], Resources())
                                for more in ([], ["evaluation.lm_tokens=0"], ["cuda_graphs=true"]))
    on_gpu, host, _ = found["places"]
    assert found["seconds"] > 0 and (on_gpu.name, host.name) == ("GPU", "host")
    assert on_gpu.phases["in a step"]["step"] > 4 * found["params"][0]
    step, twice = (one["places"][0].phases["in a step"]["step"] for one in (found, graphs))
    assert 1.9 * step < twice < 2.1 * step
    assert alone["places"][0].phases["in the evaluation"]["dense latents"] > 2048 * 4 * 96
