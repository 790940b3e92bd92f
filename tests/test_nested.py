"""Matryoshka and HierarchicalTopK: the reference's vectors in both layouts, prefixes on their own, and what YAML may say."""
import pytest
import torch
from small import job

from saesweep.arch.execution import Execution
from saesweep.arch.hierarchical_topk import HierarchicalTopK, ranks
from saesweep.arch.latents import Entries, Latents, encode
from saesweep.arch.matryoshka import Matryoshka
from saesweep.arch.nested import reconstruct_nested
from saesweep.arch.ops import entries, plain
from saesweep.arch.ops.entries import starts_of
from saesweep.config.check import check
from saesweep.errors import UsageError

AUX = {"alpha": 0.0, "k_aux": 1, "aux_tokens": 0}
X = torch.tensor([[1.0, 0.5], [0.2, 0.9]], dtype=torch.float64)
both_layouts = pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])


def with_weights(sae):
    sae = sae.double()
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]]))
        sae.b_dec.copy_(torch.tensor([0.1, -0.1]))
    return sae


def latents(f, dense):
    """These values as latents of one layout, and the leaf that takes their gradient."""
    f = torch.tensor(f, dtype=torch.float64)
    if dense:
        return Latents(leaf := f.requires_grad_(), tuple(f.shape))
    rows, columns = (f > 0).nonzero(as_tuple=True)
    found = Entries(starts_of((f > 0).sum(1)), rows, columns, tuple(f.shape), plain)
    leaf = f[rows, columns].requires_grad_()
    return Latents(leaf, tuple(f.shape), found)


def close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-6, rtol=1e-5)


@both_layouts
def test_the_losses_of_prefixes_and_their_gradients(dense):
    sae = with_weights(Matryoshka(2, 4, 2, prefixes=[0.25, 0.5, 1.0], threshold_tokens=1, **AUX))
    assert sae.prefixes == (1, 2, 4)
    f = latents([[1.0, 0.5, 0.0, 0.2], [0.0, 0.3, 0.4, 0.0]], dense)
    x_hat, losses = reconstruct_nested(sae, f, X, torch.tensor([0, 1, 2, 2]), 3)
    losses.sum().backward()
    close(losses.detach(), [0.69, 0.26, 0.084])
    close(x_hat, sae.decode(f.dense()).tolist())
    df = torch.tensor([[0.14, -0.08, -0.02, 0.06], [-0.06, -1.08, -0.22, -0.34]], dtype=torch.float64)
    kept = torch.ones_like(df, dtype=torch.bool) if dense else f.dense() > 0
    torch.testing.assert_close(f.with_values(f.values.grad).dense()[kept], df[kept])
    close(sae.W_dec.grad, [[0.14, -0.68], [0.032, -0.364], [0.056, -0.152], [-0.012, 0.004]])
    close(sae.b_dec.grad, [0.08, -2.76])


@both_layouts
def test_the_mean_loss_over_the_numbers_of_largest_latents_and_its_gradient(dense):
    sae = with_weights(HierarchicalTopK(2, 4, 3, numbers=None, **AUX))
    assert sae.numbers == [1, 2, 3] and sae.levels == (1, 2, 3)
    f = latents([[1.0, 0.5, 0.0, 0.2], [0.0, 0.3, 0.4, 0.1]], dense)
    _, losses = reconstruct_nested(sae, f, X, ranks(f).clamp(max=2), 3)
    losses.mean().backward()
    close(losses.detach(), [0.426, 0.092, 0.055])
    assert losses.mean().item() == pytest.approx(0.191)
    wanted = torch.tensor([[0.046667, -0.026667, 0.0, 0.02], [0.0, -0.233333, -0.3, -0.08]], dtype=torch.float64)
    kept = f.dense() > 0
    torch.testing.assert_close(f.with_values(f.values.grad).dense()[kept], wanted[kept], atol=1e-6, rtol=1e-5)


def test_the_losses_of_a_step_are_those_of_the_definitions(monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matryoshka = Matryoshka(6, 20, 3, prefixes=[0.1, 0.5, 1.0], threshold_tokens=1, **AUX).double()
    losses = matryoshka.step(x, torch.tensor(0.0), 0.0)[2]
    f = matryoshka.batch_threshold.largest(matryoshka, x).dense()
    assert list(losses) == ["reconstruction", "prefix_2", "prefix_10", "auxiliary"]
    for key, m in (("reconstruction", 20), ("prefix_2", 2), ("prefix_10", 10)):
        x_hat = f[:, :m] @ matryoshka.W_dec[:m] + matryoshka.b_dec
        torch.testing.assert_close(losses[key], (x - x_hat).square().sum(1).mean())
    hierarchical = HierarchicalTopK(6, 20, 4, numbers=[0.25, 0.5, 1.0], **AUX).double()
    assert hierarchical.numbers == [1, 2, 4]
    losses = hierarchical.step(x, torch.tensor(0.0), 0.0)[2]
    f = hierarchical.encode(x)
    errors = [(x - hierarchical.decode(f * plain.kept(f, None, j))).square().sum(1).mean() for j in (1, 2, 4)]
    torch.testing.assert_close(losses["reconstruction"] + losses["inner"], sum(errors) / 3)


@pytest.mark.parametrize("limit", [None, 0.1])
def test_a_prefix_encodes_as_the_whole_and_its_error_is_that_of_its_loss(limit):
    torch.manual_seed(0)
    sae = Matryoshka(6, 20, 3, prefixes=[0.2, 0.5, 1.0], threshold_tokens=1, frequency_limit=limit, **AUX)
    x = torch.randn(64, 6)
    for _ in range(3):
        losses = sae.step(x, torch.tensor(0.0), 0.0).losses
    sae.batch_threshold.value.mul_(1 - 1e-6)  # it is one of these pre-activations
    part = sae.requires_grad_(False).prefix(10)
    assert part.d_sae == 10 and part.prefixes == (4, 10) and part.W_dec.shape == (10, 6) and sae.W_dec.shape == (20, 6)
    torch.testing.assert_close(part.encode(x), sae.encode(x)[:, :10])
    torch.testing.assert_close((x - part(x)).square().sum(1).mean(), losses["prefix_10"].detach())
    assert part.exported()["threshold"].shape == (10,) and not part.W_dec.requires_grad
    assert part.prefix(4).prefixes == (4,) and sae.prefix(7).prefixes == (4, 7)
    with pytest.raises(ValueError, match=r"^prefix\(21\): the SAE has 20 latents; .* are the first 4, 10, 20$"):
        sae.prefix(21)


def test_the_gradient_is_that_of_autograd_where_the_list_has_entries_of_zero(monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sae = HierarchicalTopK(6, 20, 16, numbers=[0.25, 1.0], **AUX).double()
    pi = encode(x, sae.W_enc_T, sae.b_enc, sae.b_dec, None, 16, Execution())
    assert (pi.values < 0).any()
    gradients = []
    for sae.execution.dense in (False, True):
        sae.zero_grad()
        sum(sae.step(x, torch.tensor(0.0), 0.0).losses.values()).backward()
        gradients.append({name: p.grad.clone() for name, p in sae.named_parameters()})
    for name, wanted in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], wanted)


@pytest.mark.parametrize(("words", "message"), [
    (["arch.prefixes=[0.5,0.25,1]"], r"arch.prefixes=\[0.5, 0.25, 1\]: must be numbers above 0, each larger than the one before"),
    (["arch.prefixes=[0.5]"], r"arch.prefixes=\[0.5\]: must be numbers above 0.* of which the last is 1, such as"),
    (["arch.prefixes=[128,1]"], r"arch.prefixes=\[128, 1\]: must be"),
    (["arch.prefixes=[]"], r"arch.prefixes=\[\]: must be"),
    (["arch.prefixes=0.5"], r"arch.prefixes=0.5: must be"),
    (["width=16"], r"arch.prefixes=.*: are the first 0, 2, 4, 8, 16 of width=16 latents; each must have more .* raise width"),
])
def test_prefixes_that_cannot_be_are_refused(words, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        check(job(None, "arch=matryoshka", *words))


def test_numbers_of_active_latents_are_shares_or_null():
    check(job(None, "arch=hierarchical_topk", "arch.numbers=[0.5,1]"))
    with pytest.raises(UsageError, match=r"^arch.numbers=\[8, 32\]: must be numbers above 0"):
        check(job(None, "arch=hierarchical_topk", "arch.numbers=[8,32]"))
