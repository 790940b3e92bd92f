"""AuxK: over a list on a GPU if there are many dead latents, by dense products if there are few; equal either way."""
import pytest
import torch
from mock_gpu import gpu
from test_contract import data, make

from saesweep.arch import auxk
from saesweep.arch.ops import entries
from saesweep.arch.ops.plain import formed


def loss_and_gradients(device, deferred):
    """Of AuxK alone, with a third of the latents dead."""
    sae, x = make("topk").to(device), data().to(device)
    sae.execution.deferred_gradients = [] if deferred else None
    loss = auxk.auxk(sae, x, (0.5 * x).detach(), auxk.Dead(sae, 100), alpha=0.3, k_aux=7)
    loss.backward()
    gradients = {name: p.grad for name, p in sae.named_parameters() if p.grad is not None}
    for p, sums in sae.execution.deferred_gradients or []:
        gradients[next(name for name, q in sae.named_parameters() if q is p)] = formed(sums)
    return {"loss": loss.detach().cpu(), **{name: grad.cpu() for name, grad in gradients.items()}}


def test_the_gradients_that_a_cpu_defers_are_those_of_whole_matrices():
    torch.testing.assert_close(loss_and_gradients("cpu", True), loss_and_gradients("cpu", False))


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(("dense_below", "listed"), [(0, True), (8, False)], ids=["many dead", "few dead"])
def test_auxk_on_a_gpu_has_the_loss_and_gradients_of_dense_products_on_a_cpu(dense_below, listed, deferred, monkeypatch):
    wanted = loss_and_gradients("cpu", False)
    monkeypatch.setattr(entries, "DENSE_BELOW", dense_below)  # in fp64 plain PyTorch is used; 32 are dead, of which 7
    lists, over_a_list = [], auxk.encode_among
    monkeypatch.setattr(auxk, "encode_among", lambda *given: lists.append(over_a_list(*given)) or lists[-1])
    with gpu():
        found = loss_and_gradients("cuda", deferred)
    assert (lists[0] is not None) == listed
    assert found.keys() == wanted.keys() and found["W_enc_T"].any()
    torch.testing.assert_close(found, wanted)
