"""Each architecture has the loss of its paper, and its kernels agree with dense products. What all share: test_contract.py."""

import pytest
import torch
from mock_gpu import TRITON

from saesweep.arch import latents
from saesweep.arch.batchtopk import BatchTopK
from saesweep.arch.execution import Execution
from saesweep.arch.gated import Gated
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.ops import cpu, entries
from saesweep.arch.ops.plain import kept, tangent
from saesweep.arch.relu import ReLU
from saesweep.arch.topk import TopK

D_IN, D_SAE, K, BATCH = 12, 96, 5, 64
AVX2 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
AUX = {"alpha": 0.5, "k_aux": 7, "aux_tokens": 100}
MAKE = {
    "relu": lambda: ReLU(D_IN, D_SAE, K),
    "gated": lambda: Gated(D_IN, D_SAE, K),
    "jumprelu": lambda: JumpReLU(
        D_IN, D_SAE, K, bandwidth=0.5, init_threshold=1.5, relative=True, warm_start=0.0, threshold_tokens=3200
    ),
    "topk": lambda: TopK(D_IN, D_SAE, K, **AUX),
    "batchtopk": lambda: BatchTopK(D_IN, D_SAE, K, threshold_tokens=3200, **AUX),
}
COEFFICIENT = torch.tensor(0.03, dtype=torch.float64)


def make(name, seed=0):
    """An SAE in fp64, with every parameter perturbed."""
    torch.manual_seed(seed)
    sae = MAKE[name]().double()
    for parameter_name, p in sae.named_parameters():
        p.data += 0.05 * torch.randn_like(p)
        if parameter_name == "threshold":
            p.data.abs_().clamp_(min=sae.bandwidth / 2)
    sae.tokens_since_fired[::3] = 1000  # a third is dead
    return sae


def data(seed=1, batch=BATCH, d_in=D_IN):
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.square().sum(1).mean().sqrt()


def defined_loss(name, sae, x):
    """The loss as in the paper, dense and by autograd."""
    pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc

    def error(f, W_dec=sae.W_dec, b_dec=sae.b_dec):
        return (x - f @ W_dec - b_dec).square().sum(1).mean()

    def aux(f):
        dead = pi.masked_fill(sae.tokens_since_fired <= sae.aux_tokens, -torch.inf)
        best = dead >= dead.topk(sae.k_aux).values[:, -1:]
        residual = (x - f @ sae.W_dec - sae.b_dec).detach()
        e_hat = (torch.relu(pi) * best) @ sae.W_dec
        variance = (x - x.mean(0)).square().sum(1).mean()
        return sae.alpha * variance * (residual - e_hat).square().sum() / residual.square().sum()

    if name == "relu":
        f = torch.relu(pi)
        return error(f) + COEFFICIENT * (f * sae.W_dec.norm(dim=1)).sum(1).mean()
    if name == "gated":
        gate = torch.relu(pi)
        f = (pi > 0) * torch.relu(sae.r_mag.exp() * ((x - sae.b_dec) @ sae.W_enc) + sae.b_mag)
        return error(f) + COEFFICIENT * gate.sum(1).mean() + error(gate, sae.W_dec.detach(), sae.b_dec.detach())
    if name == "jumprelu":
        return error(pi * (pi > sae.threshold))  # thresholds' pseudo-gradients: test_jumprelu_gradients.py
    if name == "topk":
        f = torch.relu(pi) * (pi >= pi.topk(K).values[:, -1:])
        return error(f) + aux(f)
    f = torch.relu(pi) * (pi >= pi.flatten().topk(K * len(x)).values[-1])
    return error(f) + aux(f)


def gradients(sae, loss):  # without those of thresholds, which are pseudo-gradients
    sae.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None and name != "threshold"}


@pytest.mark.parametrize("layout", ["list", "dense"])
@pytest.mark.parametrize("name", MAKE)
def test_the_step_has_value_and_gradients_of_the_papers_loss(name, layout, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    sae, x = make(name), data()
    sae.execution.dense = layout == "dense"
    coefficient = torch.zeros_like(COEFFICIENT) if name == "jumprelu" else COEFFICIENT
    step = sae.step(x, coefficient, 1.0)
    assert (step.latents.entries is None) == (layout == "dense")
    loss = sum(step.losses.values())
    defined = defined_loss(name, sae, x)
    torch.testing.assert_close(loss, defined)
    found, wanted = gradients(sae, loss), gradients(sae, defined)
    assert found.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], msg=lambda m, key=key: f"{key}: {m}")
    torch.testing.assert_close(step.x_hat, step.latents.dense() @ sae.W_dec + sae.b_dec)


SIZES = [(12, 96, 64, 5), (64, 999, 100, 7), (96, 2048, 33, 64)]  # d_in, d_sae, batch, k


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    ("how", "d_in", "d_sae", "batch", "k"),
    [(how, *size) for how in ("int8", "int16", "fp32") for size in SIZES]
    + [pytest.param("gpu", 12, 96, 16, 5, marks=pytest.mark.slow)],  # the interpreter is slow
)
def test_the_compiled_sparse_step_equals_the_dense_step_with_autograd(name, d_in, d_sae, batch, k, how, monkeypatch):
    """In fp32: numba's kernels, with entries chosen in int8, int16 and fp32, and Triton's in the interpreter."""
    if how == "int16" and not AVX2:
        pytest.skip("needs a processor with AVX2")
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 0)
    monkeypatch.setattr(cpu, "rough_in", lambda: how)
    if how == "gpu":
        pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
        from saesweep.arch.ops import gpu

        monkeypatch.setattr(latents, "ops_for", lambda x: gpu)
    device = TRITON if how == "gpu" else "cpu"
    for key, value in (("D_IN", d_in), ("D_SAE", d_sae), ("K", k)):
        monkeypatch.setitem(globals(), key, value)
    sae = make(name).float().to(device)
    x, coefficient = data(batch=batch, d_in=d_in).float().to(device), COEFFICIENT.float().to(device)
    with torch.no_grad():
        sae.b_enc += (-0.5 if name == "jumprelu" else -1.7) / d_in**0.5  # a few of a hundred are active
    found = {}
    for sae.execution.dense in (False, True):
        sae.tokens_since_fired.zero_()[::3] = 1000
        step = sae.step(x, coefficient, 1.0)
        assert (step.latents.entries is None) == sae.execution.dense
        sae.zero_grad()
        sum(step.losses.values()).backward()
        gradients = {f"d{key}": p.grad.clone() for key, p in sae.named_parameters() if p.grad is not None}
        found[sae.execution.dense] = {"f": step.latents.dense().detach(), "x_hat": step.x_hat, **step.losses, **gradients}
    assert found[True]["f"].any() and found[True].keys() == found[False].keys()
    for key, wanted in found[True].items():
        torch.testing.assert_close(found[False][key], wanted, rtol=1e-4, atol=1e-5 * float(wanted.detach().abs().max()))


def test_the_candidates_contain_the_chosen_entries_for_rows_of_very_different_norm():
    torch.manual_seed(0)
    u = torch.randn(256, 64) * torch.logspace(-0.5, 0.5, 256)[:, None]
    u[:, 5] *= 4  # one coordinate dominates the scale of every row
    W_enc_T, b_enc = torch.randn(2048, 64) * torch.rand(2048, 1), torch.randn(2048) * 0.01
    pi = (u.double() @ W_enc_T.double().T + b_enc).float()
    bound = pi.quantile(0.99, dim=0)
    missed = {}
    for name, above, k in (("above", bound, 0), ("largest", None, 20)):
        _, rows, columns, values = cpu.choose(u, W_enc_T, b_enc, above, k)
        wanted, mask = kept(pi, above, k), torch.zeros_like(pi, dtype=torch.bool)
        mask[rows, columns] = True
        missed[name] = int((mask != wanted).sum()) / int(wanted.sum())
        torch.testing.assert_close(values, pi[rows, columns], rtol=1e-3, atol=1e-4 * float(values.abs().max()))
        assert (rows.diff() >= 0).all()
        if k:
            assert torch.equal(torch.bincount(rows, minlength=256), torch.full((256,), k))
    assert missed["above"] < 1e-3 and missed["largest"] < 1e-3


def test_every_row_has_k_latents_if_all_pre_activations_are_equal():
    for value in (0.0, 1.0):
        x = torch.full((8, 16), value)
        f = latents.encode(x, torch.ones(512, 16), torch.ones(512), torch.zeros(16), None, 9, Execution())
        assert ((f.dense() > 0).sum(1) == 9).all()


def test_no_sparse_list_is_made_if_too_many_entries_are_active():
    u, W_enc_T = data().float(), torch.randn(D_SAE, D_IN)
    zero = torch.zeros(D_SAE)
    assert cpu.choose(u, W_enc_T, zero, zero, 0) is None  # half of the latents
    assert cpu.choose(u, W_enc_T, zero, None, D_SAE // entries.DENSE_BELOW + 1) is None
    assert cpu.choose(u, W_enc_T, zero, zero + 100.0, 0) is not None


def test_topk_has_k_latents_or_fewer_if_the_kth_pre_activation_is_negative():
    sae, x = make("topk"), data()
    assert ((sae.encode(x) > 0).sum(1) == K).all()
    sae.b_enc.data.fill_(-0.5)
    active = (sae.encode(x) > 0).sum(1)
    pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    assert torch.equal(active, (pi > 0).sum(1).clamp(max=K)) and (active < K).any()


@pytest.mark.slow
def test_batchtopk_keeps_k_times_batch_latents_and_learns_the_smallest_as_threshold():
    sae = make("batchtopk")
    for seed in range(400):
        x = data(seed)
        kept = sae.batch_threshold.largest(sae, x).dense() > 0
        pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
        assert int(kept.sum()) == K * BATCH
        assert pi[kept].min() > pi[~kept].max()
    fresh = data(1000, 4096)
    assert float((sae.encode(fresh) > 0).sum() / 4096) == pytest.approx(K, rel=0.03)


def test_auxk_trains_only_dead_latents_and_is_zero_while_none_is_dead():
    sae, x = make("topk"), data()
    sae.step(x, COEFFICIENT, 1.0).losses["auxiliary"].backward()
    moved = sae.W_dec.grad.abs().sum(1) > 0
    assert moved.any() and not moved[sae.tokens_since_fired <= sae.aux_tokens].any()
    assert (sae.W_enc_T.grad.abs().sum(1) > 0)[moved].any()  # the encoder's too
    assert not sae.b_dec.grad.any() or sae.b_dec.grad.abs().max() < 1  # only through the encoder's input
    sae.tokens_since_fired.zero_()
    assert sae.step(x, COEFFICIENT, 1.0).losses["auxiliary"] == 0


def test_gateds_auxiliary_loss_has_no_gradient_in_the_decoder():
    sae = make("gated")
    sae.step(data(), COEFFICIENT, 1.0).losses["auxiliary"].backward()
    assert sae.W_dec.grad is None and sae.W_enc_T.grad.abs().sum() > 0


def test_a_frozen_matrix_has_no_deferred_gradient(monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    sae = make("topk").float()
    sae.W_enc_T.requires_grad_(False)
    sae.execution.deferred_gradients = []
    sum(sae.step(data().float(), COEFFICIENT.float(), 1.0).losses.values()).backward()
    assert {id(p) for p, _ in sae.execution.deferred_gradients} == {id(sae.W_dec)} and sae.W_enc_T.grad is None


def test_gated_is_a_jumprelu_with_a_gap_between_gate_and_magnitude():
    sae, x = make("gated"), data()
    r = sae.r_mag.exp()
    z = r * ((x - sae.b_dec) @ sae.W_enc) + sae.b_mag
    theta = torch.relu(sae.b_mag - r * sae.b_enc)
    torch.testing.assert_close(sae.encode(x), z * (z > theta))


def test_jumprelu_warm_starts_as_batchtopk_and_takes_over_its_threshold():
    torch.manual_seed(0)
    sae = JumpReLU(D_IN, D_SAE, K, bandwidth=0.1, init_threshold=9.0, relative=True, warm_start=0.5, threshold_tokens=3200)
    x = data().float()
    step = sae.step(x, torch.tensor(1.0), 0.0)
    assert int((step.latents.values > 0).sum()) == K * BATCH and step.losses["sparsity"] == 0
    assert (sae.threshold == float(sae.batch_threshold.value)).all()
    assert float(sae.step(x, torch.tensor(1.0), 0.5).latents.l0) == pytest.approx(K, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "gated", "jumprelu"])
def test_training_is_equivariant_to_the_scale_of_the_activations(name):
    """On x and on s x, with thresholds, bandwidth, learning rates and coefficient rescaled: the same FVU and L0."""
    s, curves = 5.0, []
    for unit in (1.0, s):
        torch.manual_seed(0)
        sae = MAKE[name]().double()
        if name == "jumprelu":
            sae.bandwidth *= unit
            sae.threshold.data *= unit
        in_units = {"b_enc", "b_mag", "b_dec", "threshold"}
        # SGD: gradients of weights grow with s^2, those of biases and thresholds with s; the coefficient of an L1
        # penalty scales with s, that of an L0 penalty with s^2
        lr = [{"params": [p], "lr": 0.05 if n in in_units else 0.05 / unit**2} for n, p in sae.named_parameters()]
        optimizer = torch.optim.SGD(lr)
        coefficient = COEFFICIENT * (unit**2 if name == "jumprelu" else unit)
        curve = []
        for i in range(100):
            x = data(i) * unit
            step = sae.step(x, coefficient, 1.0)
            sum(step.losses.values()).backward()
            sae.W_dec.grad = tangent(sae.W_dec.grad, sae.W_dec)
            optimizer.step()
            optimizer.zero_grad()
            sae.W_dec.data /= sae.W_dec.norm(dim=1, keepdim=True)
            sae.constrain_()
            curve.append((float(step.latents.l0), float((x - step.x_hat).square().sum() / x.square().sum())))
        curves.append(torch.tensor(curve))
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-3, atol=1e-3)
    assert curves[0][-1, 1] < curves[0][0, 1]
