"""AuxK: over a list on a GPU if there are many dead latents, by dense products if there are few; equal either way."""
import pytest
import torch
from mock_gpu import gpu
from test_contract import data, make

from saesweep.arch import auxk
from saesweep.arch.ops import entries
from saesweep.arch.ops.plain import formed
from saesweep.arch.ops.room import Room


def loss_and_gradients(device, deferred, room=None, dead=True):
    """Of AuxK alone, with a third of the latents dead, or none."""
    sae, x = make("topk").to(device), data().to(device)
    if not dead:
        sae.tokens_since_fired.zero_()
    sae.execution.dead_room, sae.execution.retaken = room, room is not None
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


@pytest.mark.parametrize("places", [32, 40, 96])
@pytest.mark.parametrize("dense_below", [0, 8], ids=["list", "dense"])
def test_room_for_more_dead_latents_changes_neither_loss_nor_gradients(dense_below, places, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", dense_below)
    with gpu():
        wanted = loss_and_gradients("cuda", True)
        found = loss_and_gradients("cuda", True, Room(places, fixed=True))
    torch.testing.assert_close(found, wanted)


def test_room_for_dead_latents_of_which_there_are_none_gives_a_loss_of_zero_without_gradients():
    with gpu():
        found = loss_and_gradients("cuda", True, Room(16, fixed=True), dead=False)
    assert not any(tensor.any() for tensor in found.values()) and found["loss"] == 0
