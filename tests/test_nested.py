"""Matryoshka and HierarchicalTopK: the reference's vectors in both layouts, prefixes on their own, and what YAML may say."""
import copy

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
from saesweep.arch.relu import ReLU
from saesweep.arch.topk import TopK
from saesweep.config.check import check
from saesweep.data.normalisation import Statistics
from saesweep.data.synthetic import SyntheticSource
from saesweep.errors import UsageError
from saesweep.evaluation.recovery import evaluate_synthetic
from saesweep.evaluation.subject import Subject
from saesweep.lm.hooks import HookPoint

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
    errors = []
    for m in (2, 10, 20):
        x_hat = f[:, :m] @ matryoshka.W_dec[:m] + matryoshka.b_dec
        errors.append((x - x_hat).square().sum(1).mean())
    assert list(losses) == ["reconstruction", "prefixes", "auxiliary"]
    torch.testing.assert_close(losses["reconstruction"], errors[2])
    torch.testing.assert_close(losses["prefixes"], errors[0] + errors[1])
    hierarchical = HierarchicalTopK(6, 20, 4, numbers=[0.25, 0.5, 1.0], **AUX).double()
    assert hierarchical.numbers == [1, 2, 4]
    losses = hierarchical.step(x, torch.tensor(0.0), 0.0)[2]
    f = hierarchical.encode(x)
    errors = [(x - hierarchical.decode(f * plain.kept(f, None, j))).square().sum(1).mean() for j in (1, 2, 4)]
    torch.testing.assert_close(losses["reconstruction"] + losses["inner"], sum(errors) / 3)


@pytest.mark.parametrize("limit", [None, 0.1])
def test_a_prefix_encodes_as_the_whole_and_its_error_is_that_of_its_loss(limit):
    torch.manual_seed(0)
    sae = Matryoshka(6, 20, 3, prefixes=[0.5, 1.0], threshold_tokens=1, frequency_limit=limit, **AUX)
    x = torch.randn(64, 6)
    for _ in range(3):
        losses = sae.step(x, torch.tensor(0.0), 0.0).losses
    sae.batch_threshold.value.mul_(1 - 1e-6)  # it is one of these pre-activations
    part = sae.requires_grad_(False).prefix(10)
    assert part.d_sae == 10 and part.prefixes == (10,) and part.W_dec.shape == (10, 6) and sae.W_dec.shape == (20, 6)
    torch.testing.assert_close(part.encode(x), sae.encode(x)[:, :10])
    torch.testing.assert_close((x - part(x)).square().sum(1).mean(), losses["prefixes"].detach())
    assert part.exported()["threshold"].shape == (10,) and not part.W_dec.requires_grad
    assert part.prefix(4).prefixes == (4,) and sae.prefix(12).prefixes == (10, 12)
    with pytest.raises(ValueError, match=r"^prefix\(21\): the SAE has 20 latents; .* are the first 10, 20$"):
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
    (["arch.prefixes=[0.5,0.25,1]"], r"arch.prefixes=\[0.5, 0.25, 1\]: must be numbers above 0, each larger than"),
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


def test_the_evaluation_measures_the_saes_within_an_sae():
    """The largest part is the whole; a prefix has the metrics of the SAE that it is."""
    torch.manual_seed(0)
    x, statistics = 3 + torch.randn(256, 6), statistics_of(torch.full((6,), 3.0), 2.0)
    matryoshka = Matryoshka(6, 20, 3, prefixes=[0.2, 0.5, 1.0], threshold_tokens=1, **AUX)
    matryoshka.step(statistics.apply(x), torch.tensor(0.0), 0.0)
    whole = evaluated(matryoshka, x, statistics)
    assert [part["latents"] for part in whole.parts] == ["first 4", "first 10", "first 20"]
    first = evaluated(matryoshka.prefix(10), x, statistics)
    for key in ("l0", "fvu"):
        assert whole.parts[1][key] == pytest.approx(first.numbers[key], rel=1e-5)
        assert whole.parts[2][key] == pytest.approx(whole.numbers[key], rel=1e-5)
    hierarchical = HierarchicalTopK(6, 20, 3, numbers=None, **AUX)
    found = evaluated(hierarchical, x, statistics)
    assert [part["latents"] for part in found.parts] == ["1 largest", "2 largest", "3 largest"]
    assert [part["l0"] for part in found.parts] == pytest.approx([1, 2, 3], rel=0.05)
    assert found.parts[2]["fvu"] == pytest.approx(found.numbers["fvu"], rel=1e-5)
    assert evaluated(TopK(6, 20, 3, **AUX), x, statistics).parts == []


def statistics_of(mean, scale):
    return Statistics(mean, scale, mean, float("inf"), (1.0, 1.0, 1.0, 1.0), 0.0)


def evaluated(sae, x, statistics):
    """On raw rows; the SAE is trained in their units."""
    folded = copy.deepcopy(sae).requires_grad_(False)
    folded.fold_(statistics.mean, statistics.scale)
    subject = Subject(folded, HookPoint("synthetic", "output"), statistics)
    subject.start(1)
    subject.measure(x, torch.zeros(len(x), dtype=torch.long))
    return subject.result({})


NUMBERS = {"features": 8, "d_in": 32, "l0": 2.0, "spread": 2.0, "noise": 0.0, "seed": 0, "window": 64, "stream_seed": 0}
SOURCE = SyntheticSource(HookPoint("synthetic", "output"), **NUMBERS, parents=0.25)
D = torch.linalg.qr(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))[0].T
SOURCE.dictionary = D  # orthogonal, so that x . d_i is a_i


def known(W_dec, W_enc, b_enc):
    """An SAE of these weights, on the features 0 and 1, whose children are 6 and 7."""
    sae = ReLU(32, len(W_dec), 2)
    with torch.no_grad():
        for parameter, value in ((sae.W_dec, W_dec), (sae.W_enc_T, W_enc), (sae.b_enc, b_enc)):
            parameter.copy_(value)
    return sae


def test_absorption_is_the_rate_at_which_a_parents_latent_is_silent_beside_its_child():
    (numbers,) = [one.numbers for one in evaluate_synthetic(SOURCE, [subject_of(D)], 4096)]
    assert numbers["parent_silent_with_child"] < 0.02 and numbers["parent_silent_alone"] < 0.02
    absorbing = D.clone()
    absorbing[0] = D[0] - 3 * D[6]  # the first parent's latent is silent where its child is active
    (numbers,) = [one.numbers for one in evaluate_synthetic(SOURCE, [subject_of(absorbing)], 4096)]
    assert numbers["parent_silent_with_child"] == pytest.approx(0.5, abs=0.02) and numbers["parent_silent_alone"] < 0.02


def subject_of(W_enc):
    return Subject(known(D, W_enc, torch.zeros(8)), SOURCE.point, statistics_of(torch.zeros(32), 1.0))


def test_without_parents_there_is_no_absorption_to_measure():
    source = SyntheticSource(SOURCE.point, **NUMBERS)
    (found,) = evaluate_synthetic(source, [subject_of(D)], 256)
    assert "recovery" in found.numbers and "parent_silent_with_child" not in found.numbers
