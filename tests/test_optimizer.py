"""The update of the SAEs: project, clip, Adam, renormalise; compiled and in PyTorch."""
import pytest
import torch

from saesweep.arch.ops.plain import tangent
from saesweep.training.optimizer import UnitRowAdam, clip_factor

SHAPES = {"unit": (30, 17), "matrix": (30, 17), "bias": (30,), "threshold": (30,)}


def group(dtype=torch.float32, clip=None, lr=0.01, seed=0, **more):
    torch.manual_seed(seed)
    params = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64).to(dtype)) for shape in SHAPES.values()]
    params[0].data /= params[0].data.norm(dim=1, keepdim=True)
    numbers = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "clip": clip}
    return {"params": params, "unit": [0], "unclipped": [3], **numbers, **more}


def set_gradients(params, seed):
    random = torch.Generator().manual_seed(100 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=random, dtype=torch.float64).to(p.dtype)


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_the_compiled_update_equals_torchs_adam_on_projected_and_clipped_gradients(clip):
    ours, theirs = group(clip=clip), group(torch.float64)
    optimizer = UnitRowAdam([ours])
    adam = torch.optim.Adam(theirs["params"], lr=0.01)
    for seed in range(5):
        for params in (ours["params"], theirs["params"]):
            set_gradients(params, seed)
        unit, *_, threshold = theirs["params"]
        unit.grad = tangent(unit.grad, unit.data)
        if clip:
            torch.nn.utils.clip_grad_norm_([p for p in theirs["params"] if p is not threshold], clip)
        optimizer.step()
        adam.step()
        unit.data /= unit.data.norm(dim=1, keepdim=True)
        for p, q in zip(ours["params"], theirs["params"], strict=True):
            torch.testing.assert_close(p.data.double(), q.data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "plain"])
def test_a_clip_by_the_step_before_divides_by_its_norm_and_the_first_step_by_its_own(dtype):
    ours, theirs = group(dtype, clip=2.0, clip_by_previous=True), group(torch.float64)
    optimizer, adam, norms = UnitRowAdam([ours]), torch.optim.Adam(theirs["params"], lr=0.01), []
    for seed, size in enumerate([1.0, 0.01, 3.0, 0.1]):
        for params in (ours["params"], theirs["params"]):
            set_gradients(params, seed)
            for p in params:
                p.grad *= size
        unit, *_, threshold = theirs["params"]
        unit.grad = tangent(unit.grad, unit.data)
        clipped = [p for p in theirs["params"] if p is not threshold]
        norms.append(torch.stack([p.grad.norm() for p in clipped]).norm())
        for p in clipped:
            p.grad *= min(1.0, float(2.0 / norms[max(0, seed - 1)]))
        optimizer.step()
        adam.step()
        unit.data /= unit.data.norm(dim=1, keepdim=True)
        for p, q in zip(ours["params"], theirs["params"], strict=True):
            torch.testing.assert_close(p.data.double(), q.data, rtol=1e-4, atol=1e-5)
    assert norms[0] > 2 > norms[1] > 0  # the second step is clipped by the first's, the third is not clipped
    assert "squares" not in optimizer.state[ours["params"][3]]


def test_the_plain_update_equals_the_compiled_one():
    plain, compiled = group(torch.float64, clip=0.5), group(clip=0.5)
    optimizers = [UnitRowAdam([plain]), UnitRowAdam([compiled])]
    for seed in range(5):
        for one, optimizer in zip((plain, compiled), optimizers, strict=True):
            set_gradients(one["params"], seed)
            optimizer.step()
    for p, q in zip(plain["params"], compiled["params"], strict=True):
        torch.testing.assert_close(p.data, q.data.double(), rtol=1e-4, atol=1e-5)


def test_parameter_groups_are_independent_and_one_without_gradients_does_not_change():
    alone, together, idle = group(clip=0.1), group(clip=0.1), group(seed=1)
    before = [p.detach().clone() for p in idle["params"]]
    one, both = UnitRowAdam([alone]), UnitRowAdam([idle, together])
    for seed in range(3):
        for optimizer, own in ((one, alone), (both, together)):
            set_gradients(own["params"], seed)
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(alone["params"], together["params"], strict=True))
    assert all(torch.equal(p, q) for p, q in zip(before, idle["params"], strict=True))


def test_a_step_clears_the_gradients():
    one = group()
    set_gradients(one["params"], 0)
    optimizer = UnitRowAdam([one])
    optimizer.step_group(0)
    once = [p.detach().clone() for p in one["params"]]
    optimizer.step()
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(one["params"], once, strict=True))


def test_clipping_propagates_a_gradient_that_is_not_finite():
    bad = group(clip=1.0)
    set_gradients(bad["params"], 0)
    bad["params"][1].grad[3, 4] = float("nan")
    assert clip_factor(1.0, [bad["params"][1].grad.square().sum()]).isnan()
    UnitRowAdam([bad]).step()
    assert not bad["params"][1].isfinite().all() and bad["params"][3].isfinite().all()


@pytest.mark.parametrize("previous", [False, True])
def test_the_optimizer_resumes_from_its_state_dict(previous):
    first, second = (group(clip=1.0, clip_by_previous=previous) for _ in range(2))
    uninterrupted, resumed = UnitRowAdam([first]), UnitRowAdam([second])
    for seed in range(4):
        set_gradients(first["params"], seed)
        uninterrupted.step()
        set_gradients(second["params"], seed)
        resumed.step()
        state = resumed.state_dict()
        resumed = UnitRowAdam([second])
        resumed.load_state_dict(state)
    assert all(torch.equal(p, q) for p, q in zip(first["params"], second["params"], strict=True))
