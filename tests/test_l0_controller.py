"""The L0 controller: training reaches the target L0. Calibration is in test_contract.py."""

import math

import pytest
import torch
from small import job, trained

from saesweep.training.l0_controller import Coefficient

NUMBERS = {"start": 0.1, "power": 0.0, "gain": 0.02, "damping": 1.0, "memory": 10, "warmup": 0.1, "freeze": 0.2}
PENALISED = ("relu", "gated", "jumprelu")
RUN = ("batch_tokens=128", "log_tokens=3200", "activations={window: 16384, statistics: 4096}")


def curves(tmp_path, jobs):
    """The L0 of every member during a training, every 3,200 tokens."""
    rows = []
    trained(jobs, tmp_path, progress=lambda module: rows.append([member.latest["l0"] for member in module.members]))
    return torch.tensor(rows).T


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_training_reaches_the_target_l0(tmp_path):
    words = ("width=160", "tokens=102_400", "sparsity=8", *RUN)
    warm_start = {"jumprelu": ("arch.warm_start=0.2",)}
    l0 = curves(tmp_path, [job(None, f"arch={name}", *words, *warm_start.get(name, ())) for name in PENALISED])
    assert (l0[:2, 0] > 30).all()  # L0 starts far from its target
    assert l0[:, -12:].mean(1).tolist() == pytest.approx([8.0] * 3, rel=0.04)


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_l0_falls_with_the_fixed_coefficient_and_hardly_changes_without_one(tmp_path):
    steps = {"relu": (1e-9, 0.05, 0.3), "gated": (1e-9, 0.05, 0.3), "jumprelu": (1e-9, 5e-3, 5e-2)}
    words = ("width=128", "tokens=16_000", *RUN)
    jobs = [
        job(
            None,
            f"arch={name}",
            f"arch.coefficient={value}",
            *words,
            *(["arch.warm_start=0"] if name == "jumprelu" else []),
        )
        for name in PENALISED
        for value in steps[name]
    ]
    l0 = curves(tmp_path, jobs)
    for name, curve in zip(PENALISED, l0.split(3), strict=True):
        none, *rest = curve[:, -1].tolist()
        assert none > 1.2 * rest[0] > 1.44 * rest[1] > 0, name
        assert none > 0.5 * float(curve[0, 0]), name


def moved(coefficient, l0, progress):
    before = float(coefficient.value)
    coefficient.update_(torch.tensor(l0), progress)
    return float(coefficient.value) / before


def test_the_coefficient_rises_above_the_target_l0_and_falls_below_it():
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 16.0, 0.5) == pytest.approx(
        math.exp(math.log(2) * (0.02 + 0.1))
    )
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 4.0, 0.5) == pytest.approx(
        math.exp(-math.log(2) * (0.02 + 0.1))
    )
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 8.0, 0.5) == 1
    limit = math.exp(0.02 + 0.1)  # the step is bounded, also if no latent is active
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 1e6, 0.5) == pytest.approx(limit)
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 0.0, 0.5) == pytest.approx(1 / limit)


def test_the_coefficient_is_constant_during_warmup_and_freeze():
    for progress, moves in [(0.0, False), (0.099, False), (0.1, True), (0.79, True), (0.81, False), (1.0, False)]:
        assert (moved(Coefficient(8, fixed=None, **NUMBERS), 100.0, progress) != 1) is moves, progress


def test_a_fixed_coefficient_is_constant():
    coefficient = Coefficient(8, fixed=6e-4, **NUMBERS)
    for progress in torch.linspace(0, 1, 50).tolist():
        coefficient.update_(torch.tensor(100.0), progress)
    assert float(coefficient.value) == pytest.approx(6e-4)


def test_the_coefficient_starts_at_a_power_of_the_target_l0():
    assert float(Coefficient(16, fixed=None, **(NUMBERS | {"power": -0.5})).value) == pytest.approx(0.1 / 4)
    assert float(Coefficient(16, fixed=6e-4, **(NUMBERS | {"power": -0.5})).value) == pytest.approx(6e-4)


@pytest.mark.parametrize("fixed", [None, 0.1])
def test_the_coefficient_rises_linearly_over_the_warm_up(fixed):
    coefficient = Coefficient(8, fixed=fixed, **NUMBERS)
    found = [float(coefficient.at(progress)) for progress in (0.0, 0.025, 0.05, 0.1, 0.7)]
    assert found == pytest.approx([0.0, 0.025, 0.05, 0.1, 0.1])
    assert float(Coefficient(8, fixed=fixed, **(NUMBERS | {"warmup": 0.0})).at(0.0)) == pytest.approx(0.1)
