"""`sparsity` is the sparsity: the controller in training, and the thresholds' last shift on held-out rows."""

import math

import pytest
import torch
from small import ARCHS, job, trained

from saesweep.arch.batchtopk import BatchTopK
from saesweep.arch.gated import Gated
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.relu import ReLU
from saesweep.training.calibration import meet_l0_
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
def test_training_brings_l0_to_its_target(tmp_path):
    words = ("width=160", "tokens=102_400", "sparsity=8", *RUN)
    warm_start = {"jumprelu": ("arch.warm_start=0.2",)}
    l0 = curves(tmp_path, [job(None, f"arch={name}", *words, *warm_start.get(name, ())) for name in PENALISED])
    assert (l0[:2, 0] > 30).all()  # they come from far off
    assert l0[:, -12:].mean(1).tolist() == pytest.approx([8.0] * 3, rel=0.04)


@pytest.mark.slow
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


D_IN, D_SAE, TARGET, ROWS = 16, 128, 6, 3000
MAKE = {
    "relu": lambda k: ReLU(D_IN, D_SAE, k),
    "gated": lambda k: Gated(D_IN, D_SAE, k),
    "jumprelu": lambda k: JumpReLU(
        D_IN, D_SAE, k, bandwidth=0.5, init_threshold=1.0, relative=True, warm_start=0.0, threshold_tokens=3200
    ),
    "batchtopk": lambda k: BatchTopK(D_IN, D_SAE, k, threshold_tokens=3200, alpha=0.0, k_aux=1, aux_tokens=1),
}


def made(name, k=TARGET):
    """With biases, thresholds and magnitudes that differ from latent to latent."""
    torch.manual_seed(0)
    sae = MAKE[name](k).requires_grad_(False)
    sae.b_enc += 0.05 * torch.randn(D_SAE)
    if name == "gated":
        sae.b_mag -= 0.1 * torch.rand(D_SAE)
        sae.r_mag += 0.3 * torch.randn(D_SAE)
    if name == "jumprelu":
        sae.threshold += 0.1 * torch.rand(D_SAE)
    if name == "batchtopk":
        sae.batch_threshold.value.fill_(0.1)
    return sae


X = torch.randn(ROWS, D_IN, generator=torch.Generator().manual_seed(1)) / D_IN**0.5


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("target", [1, TARGET, 30])
def test_the_last_shift_meets_the_target_exactly_on_its_rows(name, target):
    sae = made(name, target)
    before = int((sae.encode(X) > 0).sum())
    shift = meet_l0_(sae, X)
    active = int((sae.encode(X) > 0).sum())
    assert abs(active - target * ROWS) <= 3  # ties of rounding
    assert (shift > 0) == (before > target * ROWS)
    assert (sae.encode(X) >= 0).all()
    assert meet_l0_(sae, X) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_the_last_shift_changes_how_many_are_active_and_not_how_strongly(name):
    sae = made(name)
    before = sae.encode(X)
    shift = meet_l0_(sae, X)
    after = sae.encode(X)
    both = (before > 0) & (after > 0)
    wanted = before[both] - (shift if name == "relu" else 0)  # whose threshold is its bias
    assert both.sum() > ROWS
    torch.testing.assert_close(after[both], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_a_target_that_cannot_be_met_is_left_alone_and_no_latent_becomes_negative(name):
    sae = made(name, D_SAE)
    meet_l0_(sae, X)
    assert (sae.encode(X) >= 0).all()
    sae = made(name, 100)  # more than have a positive pre-activation
    meet_l0_(sae, X)
    assert (sae.encode(X) >= 0).all()


def test_every_architecture_with_a_threshold_can_be_shifted_and_topk_needs_no_shift():
    assert set(MAKE) == set(ARCHS) - {"topk"}
