"""Every architecture: its loss is its equation, lists and dense matrices agree, folding and saving change nothing."""
import inspect
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from saesweep.arch import latents
from saesweep.arch.batchtopk import BatchTopK, RunningThreshold
from saesweep.arch.gated import Gated
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.relu import ReLU
from saesweep.arch.topk import TopK
from saesweep.instantiate import locate

D_IN, D_SAE, K, BATCH = 12, 96, 5, 64
AUX = {"alpha": 0.5, "k_aux": 7, "aux_tokens": 100}
MAKE = {
    "relu": lambda: ReLU(D_IN, D_SAE, K),
    "gated": lambda: Gated(D_IN, D_SAE, K),
    "jumprelu": lambda: JumpReLU(D_IN, D_SAE, K, bandwidth=0.5, init_threshold=1.5, relative=True, warm_start=0.0),
    "topk": lambda: TopK(D_IN, D_SAE, K, **AUX),
    "batchtopk": lambda: BatchTopK(D_IN, D_SAE, K, **AUX),
}
COEFFICIENT = torch.tensor(0.03, dtype=torch.float64)


def made(name, seed=0):
    """In fp64, every parameter away from its initial value."""
    torch.manual_seed(seed)
    sae = MAKE[name]().double()
    for parameter_name, p in sae.named_parameters():
        p.data += 0.05 * torch.randn_like(p)
        if parameter_name == "threshold":
            p.data.abs_().clamp_(min=sae.bandwidth / 2)
    sae.tokens_since_fired[::3] = 1000  # a third is dead
    return sae


def data(seed=1, batch=BATCH):
    x = torch.randn(batch, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.square().sum(1).mean().sqrt()


def defined_loss(name, sae, x):
    """The loss as the paper writes it: dense, by autograd, no list anywhere."""
    pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc

    def error(f, W_dec=sae.W_dec, b_dec=sae.b_dec):
        return (x - f @ W_dec - b_dec).square().sum(1).mean()

    def aux(f):
        dead = pi.masked_fill(sae.tokens_since_fired <= sae.aux_tokens, -torch.inf)
        best = dead >= dead.topk(sae.k_aux).values[:, -1:]
        residual = (x - f @ sae.W_dec - sae.b_dec).detach()
        e_hat = (torch.relu(pi) * best) @ sae.W_dec
        return sae.alpha * (residual - e_hat).square().sum() / residual.square().sum()

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


def gradients(sae, loss):
    sae.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None and name != "threshold"}


@pytest.mark.parametrize("layout", ["list", "dense"])
@pytest.mark.parametrize("name", MAKE)
def test_the_step_is_the_equation_in_value_and_gradient(name, layout, monkeypatch):
    monkeypatch.setattr(latents, "DENSE_BELOW", 0 if layout == "list" else 10**9)
    sae, x = made(name), data()
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


@pytest.mark.parametrize("name", MAKE)
def test_choosing_entries_by_bf16_pre_activations_changes_no_value_that_is_chosen(name, monkeypatch):
    monkeypatch.setattr(latents, "_bf16_is_fast", lambda: True)
    monkeypatch.setattr(latents, "DENSE_BELOW", 0)
    sae, x = made(name).float(), data().float()
    rough = sae.step(x, COEFFICIENT.float(), 1.0)
    sae.double()
    exact = sae.step(x.double(), COEFFICIENT, 1.0)
    f, wanted = rough.latents.dense().double(), exact.latents.dense()
    both = (f > 0) & (wanted > 0)
    torch.testing.assert_close(f[both], wanted[both], rtol=1e-4, atol=1e-5)
    assert int(((f > 0) != (wanted > 0)).sum()) <= 0.03 * int((wanted > 0).sum())  # at the edge of being chosen alone


def test_jumprelus_thresholds_get_the_same_gradient_from_a_list_as_from_a_dense_matrix(monkeypatch):
    sae, found = made("jumprelu"), []
    for dense_below in (0, 10**9):
        monkeypatch.setattr(latents, "DENSE_BELOW", dense_below)
        sae.zero_grad()
        sum(sae.step(data(), COEFFICIENT, 1.0).losses.values()).backward()
        found.append(sae.threshold.grad.clone())
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", MAKE)
def test_what_training_reconstructs_is_what_encode_and_decode_give(name):
    sae, x = made(name), data()
    step = sae.step(x, COEFFICIENT, 1.0)
    if name == "batchtopk":
        values = step.latents.values.detach()
        sae.threshold.value.copy_(values[values > 0].min() * (1 - 1e-9))
    f = sae.encode(x)
    torch.testing.assert_close(f, step.latents.dense())
    torch.testing.assert_close(sae(x), step.x_hat)
    torch.testing.assert_close(step.latents.l0.double(), (f > 0).double().sum(1).mean())
    assert torch.equal(step.latents.fired, (f > 0).any(0))


@pytest.mark.parametrize("name", MAKE)
def test_encode_is_never_negative(name):
    assert (made(name).encode(data()) >= 0).all()


def test_topk_has_k_latents_and_fewer_only_where_the_kth_pre_activation_is_negative():
    sae, x = made("topk"), data()
    assert ((sae.encode(x) > 0).sum(1) == K).all()
    sae.b_enc.data.fill_(-0.5)
    active = (sae.encode(x) > 0).sum(1)
    pi = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    assert torch.equal(active, (pi > 0).sum(1).clamp(max=K)) and (active < K).any()


def test_batchtopk_keeps_k_times_batch_of_the_whole_batch_and_learns_the_smallest():
    keeper, generator = RunningThreshold(), torch.Generator().manual_seed(0)
    for _ in range(400):
        z = torch.randn(BATCH, D_SAE, generator=generator)
        candidates = keeper.candidates(z, K)
        kept = keeper.largest(latents.Latents(z.masked_fill(~candidates, 0.0), tuple(z.shape)), K).values > 0
        assert int(kept.sum()) == K * BATCH
        assert z[kept].min() > z[~kept].max()
    fresh = torch.randn(4096, D_SAE, generator=generator)
    assert float((fresh > keeper.value).sum() / 4096) == pytest.approx(K, rel=0.03)


def test_auxk_moves_dead_latents_only_and_is_left_out_while_none_is_dead():
    sae, x = made("topk"), data()
    sae.step(x, COEFFICIENT, 1.0).losses["auxiliary"].backward()
    moved = sae.W_dec.grad.abs().sum(1) > 0
    assert moved.any() and not moved[sae.tokens_since_fired <= sae.aux_tokens].any()
    assert (sae.W_enc_T.grad.abs().sum(1) > 0)[moved].any()  # the encoder's too
    assert not sae.b_dec.grad.any() or sae.b_dec.grad.abs().max() < 1  # through the encoder's input alone
    sae.tokens_since_fired.zero_()
    assert sae.step(x, COEFFICIENT, 1.0).losses["auxiliary"] == 0


def test_gateds_auxiliary_loss_does_not_reach_the_decoder():
    sae = made("gated")
    sae.step(data(), COEFFICIENT, 1.0).losses["auxiliary"].backward()
    assert sae.W_dec.grad is None and sae.W_enc_T.grad.abs().sum() > 0


@pytest.mark.parametrize("name", MAKE)
def test_the_decoder_starts_and_stays_on_the_unit_sphere_and_its_gradient_is_tangent(name):
    torch.manual_seed(0)
    sae = MAKE[name]().double()
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01)
    for seed in range(3):
        sum(sae.step(data(seed), COEFFICIENT, 1.0).losses.values()).backward()
        sae.project_gradient_()
        assert (sae.W_dec.grad * sae.W_dec).sum(1).abs().max() < 1e-6
        optimizer.step()
        optimizer.zero_grad()
        sae.constrain_()
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE, dtype=torch.float64))


@pytest.mark.parametrize("name", MAKE)
def test_folded_equals_unfolded(name):
    sae, x = made(name), data()
    sae.step(x, COEFFICIENT, 1.0)  # BatchTopK learns its threshold
    mean, scale = torch.randn(D_IN, dtype=torch.float64), 7.3
    f, x_hat = sae.encode(x), sae(x)
    sae.requires_grad_(False).fold_(mean, scale)
    raw = x * scale + mean
    torch.testing.assert_close(sae.encode(raw), scale * f, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sae(raw), x_hat * scale + mean, rtol=1e-9, atol=1e-9)


def test_gated_is_a_jumprelu_with_a_gap_between_gate_and_magnitude():
    sae, x = made("gated"), data()
    r = sae.r_mag.exp()
    z = r * ((x - sae.b_dec) @ sae.W_enc) + sae.b_mag
    theta = torch.relu(sae.b_mag - r * sae.b_enc)
    torch.testing.assert_close(sae.encode(x), z * (z > theta))


def test_jumprelu_warm_starts_as_batchtopk_and_hands_its_threshold_over():
    torch.manual_seed(0)
    sae = JumpReLU(D_IN, D_SAE, K, bandwidth=0.1, init_threshold=9.0, relative=True, warm_start=0.5)
    x = data().float()
    step = sae.step(x, torch.tensor(1.0), 0.0)
    assert int((step.latents.values > 0).sum()) == K * BATCH and step.losses["sparsity"] == 0
    assert (sae.threshold == float(sae.batch_threshold.value)).all()
    assert float(sae.step(x, torch.tensor(1.0), 0.5).latents.l0) == pytest.approx(K, abs=0.05)


@pytest.mark.parametrize("name", MAKE)
def test_the_fused_optimizer_on_weights_stored_by_latent_equals_the_plain_one(name):
    saes = [made(name) for _ in range(2)]
    both = zip(saes, (True, False), strict=True)
    optimizers = [torch.optim.Adam(sae.parameters(), lr=0.01, fused=fused) for sae, fused in both]
    for seed in range(3):
        for sae, optimizer in zip(saes, optimizers, strict=True):
            sum(sae.step(data(seed), COEFFICIENT, 1.0).losses.values()).backward()
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(saes[0].parameters(), saes[1].parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", ["relu", "gated", "jumprelu"])
def test_units_do_not_matter(name):
    """Trained on x and on s x, with thresholds, bandwidth, learning rates and coefficient rescaled: the same fvu and L0."""
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
            sae.project_gradient_()
            optimizer.step()
            optimizer.zero_grad()
            sae.constrain_()
            curve.append((float(step.latents.l0), float((x - step.x_hat).square().sum() / x.square().sum())))
        curves.append(torch.tensor(curve))
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-3, atol=1e-3)
    assert curves[0][-1, 1] < curves[0][0, 1]


@pytest.mark.parametrize("name", MAKE)
def test_a_dead_latent_is_counted_in_tokens(name):
    sae = made(name)
    sae.tokens_since_fired.zero_()
    step = sae.step(data(), COEFFICIENT, 1.0)
    sae.count_fired_(step.latents)
    assert torch.equal(sae.tokens_since_fired == BATCH, ~step.latents.fired)
    assert torch.equal(sae.tokens_since_fired == 0, step.latents.fired)


CONF = Path(__file__).parent.parent / "conf" / "arch"
NOT_THE_CONSTRUCTORS = {"name", "_target_", "coefficient", "control", "optimizer"}


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_keys_of_an_architectures_yaml_are_its_constructors_arguments(file):
    node = OmegaConf.to_container(OmegaConf.load(file))
    parameters = inspect.signature(locate(node["_target_"])).parameters
    assert set(node) - NOT_THE_CONSTRUCTORS == set(parameters) - {"self", "d_in", "d_sae", "sparsity"}
    assert all(p.default is p.empty for p in parameters.values())  # numbers stand in YAML alone
