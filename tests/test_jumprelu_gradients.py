"""The pseudo-gradients of JumpReLU, against the reference's test vectors and against finite differences."""
import pytest
import torch

from saesweep.arch.jumprelu import JumpReLU, heaviside, jumprelu

Z = torch.tensor([0.2, 0.35, 0.5, 0.6, 0.8], dtype=torch.float64)
THETA, EPS = 0.5, 0.4


def gradients(fn, z=Z, theta=THETA, eps=EPS):
    z = z.clone().requires_grad_()
    theta = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    out = fn(z, theta.expand_as(z), eps)
    out.sum().backward()
    return out.detach(), z.grad, theta.grad.item()


def test_jumprelu_has_the_published_values_and_pseudo_derivatives():
    f, dz, dtheta = gradients(jumprelu)
    torch.testing.assert_close(f, torch.tensor([0, 0, 0, 0.6, 0.8], dtype=torch.float64))
    torch.testing.assert_close(dz, torch.tensor([0, 0, 0, 1, 1], dtype=torch.float64))
    assert dtheta == pytest.approx(-3.75)


def test_heaviside_is_1_above_the_threshold_with_a_gradient_in_the_threshold_only():
    active, dz, dtheta = gradients(heaviside)
    assert active.tolist() == [0, 0, 0, 1, 1]
    assert dz is None or not dz.any()
    assert dtheta == pytest.approx(-7.5)


@pytest.mark.parametrize(("fn", "input_gradient"), [(jumprelu, [0, 1.25, 1.25, 2.25, 1]), (heaviside, [0, 2.5, 2.5, 2.5, 0])])
def test_the_thresholds_gradient_is_minus_the_inputs_extra_gradient_in_the_other_variant(fn, input_gradient):
    """Section 1.9: in the variant with gradients in the input, d/dz is ours minus our d/dtheta."""
    z, theta = Z.clone().requires_grad_(), torch.full_like(Z, THETA).requires_grad_()
    fn(z, theta, EPS).sum().backward()
    dz = torch.zeros_like(Z) if z.grad is None else z.grad
    torch.testing.assert_close(dz - theta.grad, torch.tensor(input_gradient, dtype=torch.float64))


def test_heaviside_of_latents_would_lose_the_lower_half_of_the_window():
    f = jumprelu(Z, torch.full_like(Z, THETA), EPS).detach()
    assert gradients(heaviside, z=f)[2] == pytest.approx(-2.5)


@pytest.mark.parametrize(("fn", "raw", "log"), [(jumprelu, -3.75, -1.875), (heaviside, -7.5, -3.75)])
def test_the_gradient_of_a_log_threshold_is_theta_times_that_of_a_threshold(fn, raw, log):
    log_theta = torch.tensor(THETA, dtype=torch.float64).log().requires_grad_()
    fn(Z, log_theta.exp().expand_as(Z), EPS).sum().backward()
    assert log_theta.grad.item() == pytest.approx(log) == pytest.approx(THETA * raw)


@pytest.mark.parametrize("fn", [jumprelu, heaviside])
def test_the_window_excludes_both_edges(fn):
    edges = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert gradients(fn, z=edges, theta=0.5, eps=0.5)[2] == 0


def test_the_loss_of_one_latent_in_one_dimension_and_its_gradients():
    x = torch.tensor([0.1, 0.4, 0.3, 0.9, 0.7], dtype=torch.float64)  # the decoder is 1, the biases 0, lambda .25
    z, log_theta = Z.clone().requires_grad_(), torch.tensor(THETA, dtype=torch.float64).log().requires_grad_()
    theta = log_theta.exp()
    theta.retain_grad()
    f, active = jumprelu(z, theta.expand_as(z), EPS), heaviside(z, theta.expand_as(z), EPS)
    loss = ((x - f).square() + 0.25 * active).mean()
    loss.backward()
    assert loss.item() == pytest.approx(0.172)
    assert theta.grad.item() == pytest.approx(0.125)
    assert log_theta.grad.item() == pytest.approx(0.0625)
    torch.testing.assert_close(z.grad, torch.tensor([0, 0, 0, -0.12, 0.04], dtype=torch.float64))


def test_the_sparsity_loss_has_a_gradient_in_the_threshold_only():
    torch.manual_seed(0)
    sae = JumpReLU(8, 32, 4, bandwidth=0.5, init_threshold=0.5, relative=True, warm_start=0.0, threshold_tokens=3200)
    losses = sae.step(torch.randn(64, 8), torch.tensor(1.0), 1.0).losses
    grads = torch.autograd.grad(losses["sparsity"], list(sae.parameters()), allow_unused=True)
    with_gradient = {name for (name, _), g in zip(sae.named_parameters(), grads, strict=True) if g is not None and g.any()}
    assert with_gradient == {"threshold"}


class Toy:
    """Three correlated latents in four dimensions, on many tokens: E[loss] is smooth in theta."""

    def __init__(self, count=1_000_000):
        g = torch.Generator().manual_seed(0)
        self.d = torch.nn.functional.normalize(torch.randn(3, 4, generator=g, dtype=torch.float64), dim=1)
        self.x = torch.randn(count, 4, generator=g, dtype=torch.float64) * 0.5 + 0.3 * self.d.sum(0)
        self.z = self.x @ self.d.T

    def loss(self, theta, gate=None):
        f = self.z * (self.z > theta) if gate is None else gate
        return (self.x - f @ self.d).square().sum(1).mean() + 0.1 * (f > 0).sum(1).to(f).mean()

    def finite_difference(self, theta, h):
        out = []
        for i in range(3):
            e = torch.zeros(3, dtype=torch.float64)
            e[i] = h
            out.append(((self.loss(theta + e) - self.loss(theta - e)) / (2 * h)).item())
        return torch.tensor(out, dtype=torch.float64)

    def estimate(self, theta, eps, z=None, step_on_f=False):
        """The mean pseudo-gradient in theta, of the squared error and of the L0 term, coefficient 0.1."""
        theta = theta.clone().requires_grad_()
        z = self.z if z is None else z
        f = jumprelu(z, theta.expand_as(z), eps)
        active = heaviside(f if step_on_f else z, theta.expand_as(z), eps)
        ((self.x - f @ self.d).square().sum(1).mean() + 0.1 * active.sum(1).mean()).backward()
        return theta.grad


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.mark.slow
def test_the_mean_pseudo_gradient_estimates_the_slope_of_the_expected_loss(toy):
    theta = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64)
    truth = toy.finite_difference(theta, h=0.02)
    assert truth.abs().min() > 0.02
    torch.testing.assert_close(toy.estimate(theta, eps=0.05), truth, rtol=0.05, atol=0.004)


@pytest.mark.slow
def test_heaviside_of_latents_biases_the_estimate(toy):
    theta = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64)
    truth = toy.finite_difference(theta, h=0.02)
    off = toy.estimate(theta, eps=0.05, step_on_f=True) - truth
    assert (off.abs() > 0.05 * truth.abs() + 0.004).all()


@pytest.mark.slow
def test_a_wide_window_biases_the_estimate(toy):
    theta = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64)
    truth = toy.finite_difference(theta, h=0.02)
    assert (toy.estimate(theta, eps=1.0) - truth).abs().max() > 3 * (toy.estimate(theta, eps=0.05) - truth).abs().max()


@pytest.mark.slow
def test_below_half_the_bandwidth_a_relu_before_the_window_biases_the_estimate(toy):
    theta = torch.full((3,), 0.02, dtype=torch.float64)
    eps, truth = 0.1, toy.finite_difference(theta, h=0.02)
    plain = toy.estimate(theta, eps)
    torch.testing.assert_close(plain, truth, rtol=0.1, atol=0.005)
    rectified = toy.estimate(theta, eps, z=torch.relu(toy.z))
    assert (rectified / truth > 3).all()  # every inactive token has z = 0, which is in the window
    masked = toy.estimate(theta, eps, z=torch.where(toy.z > 0, toy.z, -1.0))
    assert ((masked / truth > 0.5) & (masked / truth < 0.9)).all()


def test_from_half_the_bandwidth_on_a_relu_before_the_window_changes_nothing(toy):
    theta, eps = torch.full((3,), 0.05, dtype=torch.float64), 0.1
    torch.testing.assert_close(toy.estimate(theta, eps, z=torch.relu(toy.z)), toy.estimate(theta, eps))


def test_thresholds_are_kept_at_half_the_bandwidth_or_more():
    sae = JumpReLU(4, 8, 2, bandwidth=0.4, init_threshold=0.01, relative=False, warm_start=0.0, threshold_tokens=3200)
    sae.constrain_()
    assert (sae.threshold == 0.2).all()
