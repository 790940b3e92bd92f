"""`sparsity` is the sparsity: the controller in training; test_contract.py has the thresholds' last shift."""

import math

import pytest
import torch
from small import job, trained

from saesweep.training.l0_controller import Coefficient

NUMBERS = {"start": 0.1, "power": 0.0, "gain": 0.02, "damping": 1.0, "memory": 10, "warmup": 0.1, "freeze": 0.2}
PENALISED = ("relu", "gated", "jumprelu")
RUN = ("batch_tokens=128", "log_tokens=3200", "activations={window: 16384, statistics: 4096}")


def curves(tmp_path, jobs):
    """L0 of every member over a training, one value every 3,200 tokens."""
    rows = []
    trained(jobs, tmp_path, progress=lambda module: rows.append([member.latest["l0"] for member in module.members]))
    return torch.tensor(rows).T


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_training_brings_l0_to_its_target(tmp_path):
    words = ("width=160", "tokens=102_400", "sparsity=8", *RUN)
    warm_start = {"jumprelu": ("arch.warm_start=0.2",)}
    l0 = curves(tmp_path, [job(None, f"arch={name}", *words, *warm_start.get(name, ())) for name in PENALISED])
    assert (l0[:2, 0] > 30).all()  # they come from far off
    assert l0[:, -12:].mean(1).tolist() == pytest.approx([8.0] * 3, rel=0.04)


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_a_larger_fixed_coefficient_gives_a_smaller_l0_and_next_to_none_leaves_it(tmp_path):
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


def test_too_many_active_raise_the_coefficient_and_too_few_lower_it():
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 16.0, 0.5) == pytest.approx(
        math.exp(math.log(2) * (0.02 + 0.1))
    )
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 4.0, 0.5) == pytest.approx(
        math.exp(-math.log(2) * (0.02 + 0.1))
    )
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 8.0, 0.5) == 1
    limit = math.exp(0.02 + 0.1)  # however far off, even with nothing active
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 1e6, 0.5) == pytest.approx(limit)
    assert moved(Coefficient(8, fixed=None, **NUMBERS), 0.0, 0.5) == pytest.approx(1 / limit)


def test_nothing_moves_before_the_end_of_the_warm_up_nor_in_the_frozen_part():
    for progress, moves in [(0.0, False), (0.099, False), (0.1, True), (0.79, True), (0.81, False), (1.0, False)]:
        assert (moved(Coefficient(8, fixed=None, **NUMBERS), 100.0, progress) != 1) is moves, progress


def test_a_fixed_coefficient_stays_as_it_is():
    coefficient = Coefficient(8, fixed=6e-4, **NUMBERS)
    for progress in torch.linspace(0, 1, 50).tolist():
        coefficient.update_(torch.tensor(100.0), progress)
    assert float(coefficient.value) == pytest.approx(6e-4)


def test_the_coefficient_starts_at_a_power_of_the_target():
    assert float(Coefficient(16, fixed=None, **(NUMBERS | {"power": -0.5})).value) == pytest.approx(0.1 / 4)
    assert float(Coefficient(16, fixed=6e-4, **(NUMBERS | {"power": -0.5})).value) == pytest.approx(6e-4)


@pytest.mark.parametrize("fixed", [None, 0.1])
def test_the_coefficient_rises_linearly_over_the_warm_up(fixed):
    coefficient = Coefficient(8, fixed=fixed, **NUMBERS)
    found = [float(coefficient.at(progress)) for progress in (0.0, 0.025, 0.05, 0.1, 0.7)]
    assert found == pytest.approx([0.0, 0.025, 0.05, 0.1, 0.1])
    assert float(Coefficient(8, fixed=fixed, **(NUMBERS | {"warmup": 0.0})).at(0.0)) == pytest.approx(0.1)
