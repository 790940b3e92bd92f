"""Anthropic's JumpReLU and Gemma Scope 2's quadratic L0: the reference's vectors, layouts, ranks, and the units of the YAML."""
import pytest
import torch
from small import job

from saesweep.arch.jumprelu import jumprelu
from saesweep.arch.jumprelu_anthropic import AnthropicJumpReLU, jumprelu_to_all
from saesweep.arch.jumprelu_quadratic_l0 import QuadraticL0JumpReLU
from saesweep.arch.latents import Latents
from saesweep.arch.ops import entries
from saesweep.config.check import check
from saesweep.training.build import build

PI = torch.tensor([[0.68, 0.2, 0.55], [0.6, 0.4, -0.3], [0.9, 0.62, 0.45], [0.52, 0.1, 0.28]], dtype=torch.float64)
THETA, EPS, NORMS = 0.5, 0.4, (1.0, 0.5, 2.0)
NUMBERS = {"bandwidth": EPS, "init_threshold": THETA, "relative": False, "warm_start": 0.0, "threshold_tokens": 3200}
ONE = torch.tensor(1.0, dtype=torch.float64)


def close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-6)


def of_one_latent(i, kind, **more):
    """An SAE whose only latent has the pre-activations PI[:, i] on the rows of the identity: dL/dW_enc is dL/dpi."""
    sae = kind(4, 1, 1, **NUMBERS, **more).double()
    sae.W_enc_T.data.copy_(PI[:, i : i + 1].T)
    return sae


def loss_and_gradients(key, numbers):
    """The sum of a loss of Anthropic's over three latents, each with its own numbers, and its gradients in pi and theta.

    The latents have unit norm: a norm of the reference multiplies the slope, and the coefficient of the pre-activation loss.
    """
    total, dpi, dtheta = 0.0, [], []
    for i, more in enumerate(numbers):
        sae = of_one_latent(i, AnthropicJumpReLU, **more)
        loss = sae.step(torch.eye(4, dtype=torch.float64), ONE, 1.0).losses[key]
        by_pi, by_theta = torch.autograd.grad(loss, [sae.W_enc_T, sae.threshold])
        total += loss.item()
        dpi.append(by_pi[0])
        dtheta.append(by_theta)
    return total, torch.stack(dpi, 1), torch.cat(dtheta)


DTHETA = [-0.137648, -0.803253, -2.501507]


def test_the_tanh_penalty_reaches_the_pre_activations_and_thresholds_through_the_window():
    found, dpi, dtheta = loss_and_gradients("sparsity", [{"slope": 4 * norm, "preactivation": 0.0} for norm in NORMS])
    assert found == pytest.approx(1.44699, abs=1e-5)
    close(dpi, [[0.038719, 0, 0.002712], [0.072863, 0.625, 0], [0.002982, 0.320855, 2.5], [0.136184, 0, 0]])
    close(dtheta, DTHETA)


@pytest.mark.parametrize(("jump", "wanted"), [
    (jumprelu_to_all, [[0.038719, 0, 0.002712], [0.072863, 0.625, 0], [0.002982, 0.320855, 2.5], [0.136184, 0, 0]]),
    (jumprelu, [[0.017208, 0, 0.001206], [0.032384, 0, 0], [0.002982, 0.142602, 0], [0.060526, 0, 0]]),
], ids=["to all", "to the thresholds"])
def test_both_forms_of_the_pseudo_derivative_have_one_gradient_in_the_thresholds(jump, wanted):
    pi, theta = PI.clone().requires_grad_(), torch.full((3,), THETA, dtype=torch.float64, requires_grad=True)
    f = jump(pi, theta.expand_as(pi), EPS)
    loss = torch.tanh(4 * f * torch.tensor(NORMS, dtype=torch.float64)).sum(1).mean()
    loss.backward()
    assert loss.item() == pytest.approx(1.44699, abs=1e-5)
    close(pi.grad, wanted)
    close(theta.grad, DTHETA)


def test_the_jump_itself_has_the_published_pseudo_derivatives():
    z = torch.tensor([0.2, 0.35, 0.5, 0.6, 0.8], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    jumprelu_to_all(z, theta.expand_as(z), EPS).sum().backward()
    close(z.grad, [0, 1.25, 1.25, 2.25, 1])
    close(theta.grad, -3.75)


def test_the_preactivation_loss_moves_what_is_not_active_towards_its_threshold():
    found, dpi, dtheta = loss_and_gradients("auxiliary", [{"slope": 4.0, "preactivation": norm} for norm in NORMS])
    assert found == pytest.approx(0.635)
    close(-dpi, [[0, 0.125, 0], [0, 0.125, 0.5], [0, 0, 0.5], [0, 0.125, 0.5]])
    close(dtheta, [0.0, 0.375, 1.5])


def test_a_frequency_scale_penalises_the_squared_mean_of_the_tanh():
    numbers = [{"slope": 4 * norm, "preactivation": 0.0, "frequency_scale": 0.01} for norm in NORMS]
    found, _, dtheta = loss_and_gradients("sparsity", numbers)
    assert found == pytest.approx(109.321433, abs=1e-5)
    close(dtheta, [-27.273564, -34.758991, -127.53915])


def literal_losses(sae, x):
    """Anthropic's two terms, written down densely, with the window's gradient in pi and theta."""
    pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    window = ((pi - sae.threshold).abs() < sae.bandwidth / 2).double()
    slide = (sae.threshold / sae.bandwidth).detach() * window * (pi - sae.threshold)
    f = pi * (pi > sae.threshold) + slide - slide.detach()
    error = (x - f @ sae.W_dec - sae.b_dec).square().sum(1).mean()
    return {"reconstruction": error, "sparsity": 0.3 * torch.tanh(sae.slope * f).sum(1).mean(),
            "auxiliary": sae.preactivation * torch.relu(sae.threshold - pi).sum(1).mean()}


@pytest.mark.parametrize("init_threshold", [0.2, 4.0], ids=["a window over negative pi", "few active"])
@pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])
def test_a_step_has_the_losses_and_gradients_of_the_equations(dense, init_threshold, monkeypatch):
    """With theta below eps / 2, 0 lies in the window: an entry that is left out must not count as a pi of 0."""
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    torch.manual_seed(0)
    x = torch.randn(64, 8, dtype=torch.float64)
    sae = AnthropicJumpReLU(8, 96, 4, **{**NUMBERS, "relative": True, "bandwidth": 2.0, "init_threshold": init_threshold},
                            slope=4.0, preactivation=0.5).double()
    with torch.no_grad():
        for parameter in (sae.b_enc, sae.b_dec):
            parameter += 0.05 * torch.randn_like(parameter)
    sae.execution.dense = dense
    step, wanted = sae.step(x, ONE * 0.3, 1.0), literal_losses(sae, x)
    assert (step.latents.entries is None) == dense and list(step.losses) == list(wanted)
    parameters = dict(sae.named_parameters())
    for key in wanted:
        torch.testing.assert_close(step.losses[key], wanted[key])
        found, expected = (torch.autograd.grad(loss[key], list(parameters.values()), retain_graph=True, allow_unused=True)
                           for loss in (step.losses, wanted))
        for name, a, b in zip(parameters, found, expected, strict=True):
            a, b = (torch.zeros_like(parameters[name]) if g is None else g for g in (a, b))
            torch.testing.assert_close(a, b, msg=lambda m, of=(key, name): f"{of}: {m}")


def test_the_numbers_of_the_yaml_are_converted_from_anthropics_units():
    """Theirs is E||x||^2 = d_in, ours 1: x is theirs over sqrt(d_in), and a loss is theirs over d_in."""
    cfg = job(None, "arch=paper_jumprelu_anthropic")
    check(cfg)
    sae = build(cfg, 64)
    assert isinstance(sae, AnthropicJumpReLU)
    found = (sae.slope, sae.bandwidth, sae.threshold.max().item(), sae.preactivation)
    assert found == pytest.approx((4 * 8, 2 / 8, 0.1 / 8, 3e-6 / 8))


def test_the_whole_loss_is_anthropics_over_d_in():
    torch.manual_seed(0)
    x, d_in = torch.randn(32, 16, dtype=torch.float64), 16
    losses = []
    for unit in (1.0, d_in**0.5):  # ours; theirs, of which every number is given as it is
        torch.manual_seed(1)
        numbers = {**NUMBERS, "bandwidth": 2.0, "init_threshold": 0.1, "relative": unit == 1}
        sae = AnthropicJumpReLU(d_in, 64, 4, **numbers, slope=4.0, preactivation=3e-6).double()
        coefficient = ONE * 5 * unit**2 / d_in
        losses.append(torch.stack([*sae.step(x / d_in**0.5 * unit, coefficient, 1.0).losses.values()]).detach())
    torch.testing.assert_close(losses[0] * d_in, losses[1])


def test_a_threshold_of_anthropics_stays_at_its_initial_value_or_above():
    sae = AnthropicJumpReLU(4, 3, 1, **{**NUMBERS, "bandwidth": 2.0, "init_threshold": 0.1}, slope=4.0, preactivation=0.0)
    sae.threshold.data.copy_(torch.tensor([-1.0, 0.05, 0.7]))
    sae.constrain_()
    assert sae.threshold.tolist() == pytest.approx([0.1, 0.1, 0.7])


# Gemma Scope 2


def quadratic(target, **more):
    return QuadraticL0JumpReLU(2, 3, target, **NUMBERS, weight=1.0, ramp=0.0, prefixes=None, **more).double()


def penalty_of(sae):
    """The penalty of these pre-activations, and its gradient in the thresholds."""
    latents = Latents(PI.clone().requires_grad_(), (4, 3))
    penalty = sae.penalty(latents, latents, latents.at(sae.threshold))
    penalty.backward()
    assert latents.values.grad is None
    return penalty.item(), sae.threshold.grad.tolist()


def test_the_quadratic_l0_of_tokens_with_2_1_2_and_1_latents_and_its_gradient():
    found = penalty_of(quadratic(2))
    assert found[0] == pytest.approx(0.5) and found[1] == pytest.approx([2.5, 1.25, 0])


def test_the_jumprelu_papers_quadratic_l0_is_the_same_over_twice_the_target():
    value, gradient = penalty_of(quadratic(2))
    assert value / 4 == pytest.approx(0.125) and [g / 4 for g in gradient] == pytest.approx([0.625, 0.3125, 0])


def test_a_frequency_scale_adds_the_sum_of_squared_rates():
    """1.125 over the scale; section 1.2's gradient of that sum is -3.75, -.625, -.625."""
    value, gradient = penalty_of(quadratic(2, frequency_scale=0.1))
    assert value == pytest.approx(0.5 + 11.25)
    assert gradient == pytest.approx([2.5 - 37.5, 1.25 - 6.25, -6.25])


@pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])
def test_the_l0_loss_rises_over_the_ramp_and_reaches_the_thresholds_alone(dense, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    torch.manual_seed(0)
    x = torch.randn(64, 8, dtype=torch.float64)
    numbers = {**NUMBERS, "init_threshold": 1.5, "weight": 0.2, "ramp": 0.5, "frequency_scale": 0.1, "prefixes": None}
    sae = QuadraticL0JumpReLU(8, 96, 4, **numbers).double()
    sae.execution.dense = dense
    losses = [sae.step(x, ONE * 0, progress).losses for progress in (0.0, 0.25, 0.5, 1.0)]
    assert [list(one) for one in losses] == [["reconstruction", "l0", "prefixes"]] * 4
    active = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc > 1.5).double()
    full = 0.2 * (0.5 * (active.sum(1) - 4).square().mean() + active.mean(0).square().sum() / 0.1)
    assert [one["l0"].item() for one in losses] == pytest.approx([share * float(full) for share in (0, 0.5, 1, 1)])
    losses[-1]["l0"].backward()
    assert {name for name, p in sae.named_parameters() if p.grad is not None and p.grad.any()} == {"threshold"}


@pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])
def test_the_prefixes_are_the_errors_of_the_first_latents_alone(dense, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    torch.manual_seed(0)
    x = torch.randn(64, 8, dtype=torch.float64)
    numbers = {**NUMBERS, "init_threshold": 1.5, "weight": 0.2, "ramp": 0.0, "prefixes": [0.125, 0.5, 1.0]}
    sae = QuadraticL0JumpReLU(8, 96, 4, **numbers).double()
    sae.execution.dense = dense
    losses = sae.step(x, ONE * 0, 1.0).losses
    assert sae.prefixes == (12, 48, 96)
    pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    f = jumprelu(pi, sae.threshold.expand_as(pi), sae.bandwidth)
    parameters = [sae.W_enc_T, sae.b_enc, sae.W_dec, sae.b_dec, sae.threshold]
    wanted = sum((x - f[:, :m] @ sae.W_dec[:m] - sae.b_dec).square().sum(1).mean() for m in (12, 48))
    torch.testing.assert_close(losses["prefixes"], wanted)
    found, expected = (torch.autograd.grad(loss, parameters) for loss in (losses["prefixes"], wanted))
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_the_penalty_alone_ends_below_the_target_by_what_it_costs_that_tokens_differ():
    """E (n - 6)^2 = (E n - 6)^2 + Var n, and the variance grows with the mean: calibration on held-out text does the rest."""
    torch.manual_seed(0)
    sae = QuadraticL0JumpReLU(16, 128, 6, **NUMBERS, weight=1.0, ramp=0.0, prefixes=None)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(sae.step(torch.randn(256, 16), ONE.float(), 1.0).losses["l0"], [sae.threshold])
        sae.threshold.data -= 0.02 * gradient
    active = sae.encode(torch.randn(4096, 16)) > 0
    mean, variance = active.sum(1).float().mean().item(), active.sum(1).float().var().item()
    assert 4 < mean < 5.5 and variance > 1
