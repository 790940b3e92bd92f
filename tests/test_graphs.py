"""Steps that are repeated as CUDA graphs: equal to those that are not, on a mock or real GPU."""
from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from mock_gpu import REAL, Graph, OnGpu, gpu, memory
from small import job, trained, write_text
from test_contract import YAMLS, class_of, make, settings

from saesweep.arch.ops import entries, room
from saesweep.arch.relu import ReLU
from saesweep.lm.hooks import HookPoint
from saesweep.training import graphs
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.l0_controller import Coefficient
from saesweep.training.member import Member
from saesweep.training.module import SAESweep

pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
pytestmark = [pytest.mark.slow, pytest.mark.kernels]
D_IN, D_SAE, K, ROWS, STEPS = 8, 12, 2, 6, 6
POINT = HookPoint("", "output")


def batch(seed, rows=ROWS):
    x = torch.randn(rows, D_IN, generator=torch.Generator().manual_seed(seed))
    return x / x.square().sum(1).mean().sqrt()


def module_of(*archs, steps=2 * STEPS + 2):
    """SAEs past their warm start and at their target L0, with controllers that act; on the GPU."""
    members = []
    for name in archs:
        job = settings(name)
        sae = build(job | {"width": D_SAE, "sparsity": K, "cuda_graphs": True}, D_IN)
        if sae.thresholded:
            meet_l0_(sae, torch.cat([batch(seed) for seed in range(20)]))
        control = job["arch"]["control"]
        coefficient = control and Coefficient(K, fixed=None, **(control | {"warmup": 0.0, "gain": 0.1}))
        members.append(Member(name, POINT, sae, coefficient, job["arch"]["optimizer"] | {"warmup": 0.3, "decay": 0.3}))
    module = SAESweep(members, steps=steps, batch_tokens=ROWS, log_tokens=10**9, dead_after=10**9).to("cuda")
    module.on_train_start()
    module.steps_done = STEPS + 1  # half of the run: warm starts are over
    return module


def stepped(module, seeds, change=lambda seed: None, rows=ROWS):
    for seed in seeds:
        change(seed)
        module.training_step({POINT: batch(seed, rows).to("cuda")}, seed)


def outcome(module):
    state = {key: tensor.cpu() for key, tensor in module.state_dict().items()}
    sums = [member.sums.plain() for member in module.members]
    return state, sums, [module.state_of(member)[1]["steps"] for member in module.members]


def require_own_memory(module):
    """What one step leaves to the next is not in memory that other graphs use."""
    for member in module.members:
        left = [*module.state_of(member)[0].values(), *(member.sae.execution.rounded_W.copy or ())]
        shared = {where for graph in Graph.graphs for where in graph.shared}
        assert not shared & {memory(x) for x in left if isinstance(x, OnGpu)}


def require_equal(found, wanted):
    (state, sums, steps), (state_, sums_, steps_) = found, wanted
    assert steps == steps_ and state.keys() == state_.keys()
    for key, tensor in state_.items():
        if REAL:
            torch.testing.assert_close(state[key], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
        else:
            assert torch.equal(state[key], tensor), key
    assert REAL or sums == sums_


@pytest.fixture
def replays(monkeypatch):
    """How often each graph was repeated, by the order of their captures."""
    counts, known = [], graphs.SharedMemory.captured

    def captured(self, work):
        repeat, found = known(self, work)
        counts.append(0)
        number = len(counts) - 1

        def counting():
            counts[number] += 1
            repeat()

        return counting, found

    monkeypatch.setattr(graphs.SharedMemory, "captured", captured)
    return counts


def without_graphs(monkeypatch, work):
    """The same steps with the same room."""
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "WARM_UP", 10**9)
        with gpu():
            return work()


REPEATABLE = [name for name in YAMLS if make(name).repeatable(1.0)]
ONE_OF_EACH = list({class_of(name): name for name in reversed(REPEATABLE)}.values())
CASES = [*((name, "dense", 128) for name in ONE_OF_EACH), *((name, "list", 1) for name in ("gated", "jumprelu", "topk"))]


def test_the_architectures_that_are_repeated_are_those_whose_host_decides_nothing():
    assert {"relu", "gated", "jumprelu", "topk"} <= {*REPEATABLE} and not {"batchtopk", "matryoshka"} & {*REPEATABLE}
    assert not make("jumprelu").repeatable(0.0) and make("jumprelu_cold").repeatable(0.0)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(("name", "layout", "dense_below"), CASES)
def test_steps_that_are_repeated_are_those_that_are_not(name, layout, dense_below, replays, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", dense_below)

    def work():
        module = module_of(name)
        stepped(module, range(STEPS))
        require_own_memory(module)
        return outcome(module)

    wanted = without_graphs(monkeypatch, work)
    assert not replays
    with gpu():
        found = work()
    require_equal(found, wanted)
    assert len(replays) == 2 and replays[0] == replays[1] >= STEPS - graphs.WARM_UP - 1  # the first step counts


def both_ways(monkeypatch, work):
    """The outcome with and without graphs, which are equal; what `work` returned with them, and the host's waits."""
    wanted = without_graphs(monkeypatch, lambda: outcome(work()))
    with gpu() as waits:
        module = work(waits.clear)
        count = len(waits)
        require_equal(outcome(module), wanted)
    return module, count


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("when", [4, 6], ids=["the first repeated", "a later one"])
def test_a_step_whose_list_has_no_room_is_taken_again_and_later_ones_repeat_another_graph(when, replays, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 1)
    monkeypatch.setattr(room, "ALWAYS_SPARE", 0)

    def work(begin=lambda: None):
        module = module_of("relu", steps=30)

        def change(seed):
            if seed == when:
                module.members[0].sae.b_enc.data += 0.3

        stepped(module, range(10), change)
        return module

    both_ways(monkeypatch, work)
    forwards, updates = replays[0], replays[1] if when > 4 else 0
    assert (REAL or forwards == when - 3) and updates == forwards - 1 and replays[-1] >= 1


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("dense_below", [128, 1], ids=["dense", "list"])
def test_auxk_of_a_repeated_step_is_that_of_its_dead_latents(dense_below, replays, monkeypatch):
    """None at first, then three, then five, which have room, then none."""
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", dense_below)
    dead = {0: 0, 4: 3, 9: 5, 11: 0}

    def work(begin=lambda: None):
        module = module_of("topk", steps=40)
        auxiliary = []

        def change(seed):
            since = module.members[0].sae.tokens_since_fired
            since[:] = 0
            since[: dead[max(step for step in dead if step <= seed)]] = 10**9
            auxiliary.append(float(module.members[0].sums.losses.get("auxiliary", 0.0)))

        stepped(module, range(13), change)
        module.auxiliary = auxiliary
        return module

    module, _ = both_ways(monkeypatch, work)
    gained = [after > before for before, after in pairwise(module.auxiliary)]
    assert gained == [dead[max(step for step in dead if step <= seed)] > 0 for seed in range(12)]
    assert len(replays) == 4 and replays[2] >= 5, "one graph for three, five and none of them"


@pytest.mark.usefixtures("without_type_checks")
def test_saes_of_a_group_share_memory_and_one_that_is_never_repeated_is_beside_them(replays, monkeypatch):
    def work(begin=lambda: None):
        module = module_of("topk", "batchtopk", "relu")
        stepped(module, range(STEPS))
        return module

    both_ways(monkeypatch, work)
    assert len(replays) == 4


@pytest.mark.usefixtures("without_type_checks")
def test_a_batch_of_another_size_is_trained_on_without_the_graph_of_the_others(replays, monkeypatch):
    def work(begin=lambda: None):
        module = module_of("topk", steps=30)
        stepped(module, range(5))
        stepped(module, [5], rows=ROWS - 1)
        stepped(module, range(6, 10))
        return module

    both_ways(monkeypatch, work)
    assert len(replays) == 4


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("dense", [False, True])
def test_dense_steps_that_are_taken_in_pieces_are_not_repeated(dense, replays):
    with gpu():
        module = module_of("relu")
        execution = module.members[0].sae.execution
        execution.dense, execution.dense_bytes = dense, 4 * 10 * D_SAE * (ROWS - 1)
        stepped(module, range(STEPS))
        assert not replays and not module.members[0].failed


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", ["topk", "gated"])
def test_the_host_waits_for_nothing_but_the_numbers_that_say_whether_the_room_was_enough(name, monkeypatch):
    def work(begin=lambda: None):
        module = module_of(name)
        stepped(module, range(STEPS - 1))
        x = batch(STEPS).to("cuda")
        begin()
        module.training_step({POINT: x}, STEPS)
        return module

    assert both_ways(monkeypatch, work)[1] == 0


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("seen", [True, pytest.param(False, marks=pytest.mark.skipif(REAL, reason="leaves memory behind"))])
def test_a_step_that_reads_a_value_fails_alone_and_says_what_to_write(seen, monkeypatch):
    """Before it is captured; where only the capture notices, the others are trained without graphs."""
    if not seen:
        monkeypatch.setattr(graphs, "_no_waits", nullcontext)
    step = ReLU.step

    def reads(self, x, coefficient, progress):
        assert float(x.sum()) != 0
        return step(self, x, coefficient, progress)

    monkeypatch.setattr(ReLU, "step", reads)
    with gpu():
        module = module_of("relu", "topk")
        stepped(module, range(STEPS))
        failed = [member.failed for member in module.members]
        repeats = [member.graphs._forward is not None for member in module.members]
    assert "cuda_graphs=false" in failed[0] and not failed[1] and repeats == [False, seen]


@pytest.mark.usefixtures("without_type_checks")
def test_a_training_with_graphs_resumes_from_its_checkpoint(tmp_path):
    text = write_text(tmp_path)
    sizes = ("trainer=gpu", "tokens=512", "log_tokens=128", "width=16", "sparsity=2", "save_tokens=320", "cuda_graphs=true",
             "evaluation={tokens: 128, lm_tokens: 0, lm_blocks: null, calibration_tokens: 128}")
    jobs = [job(text, f"arch={arch}", *sizes) for arch in ("gated", "topk")]

    def killed(module):
        if module.steps_done == 6:
            raise ZeroDivisionError

    with gpu():
        wanted = trained(jobs, tmp_path / "undisturbed").state_dict()
        with pytest.raises(ZeroDivisionError):
            trained(jobs, tmp_path / "killed", progress=killed)
        found = trained(jobs, tmp_path / "killed").state_dict()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name].cpu(), tensor.cpu(), rtol=1e-4, atol=1e-6)
