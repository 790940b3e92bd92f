"""A dense step whose latents would take too much memory is taken in pieces, with the same gradients, within its bound."""
import weakref

import pytest
import torch
from test_contract import COEFFICIENT, D_SAE, YAMLS, data, make
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saesweep.arch.execution import DENSE_COPIES, SingleRank
from saesweep.arch.relu import ReLU
from saesweep.training.pieces import forward_backward

SEPARABLE = [name for name in YAMLS if make(name).separable(1.0)]
ROWS = 7  # of a piece


def outcome(name, x, dense_bytes, ranks=None):
    """What a step leaves: losses, L0, fired latents and gradients."""
    sae = make(name)
    sae.execution.dense, sae.execution.dense_bytes = True, dense_bytes
    sae.execution.ranks = ranks or sae.execution.ranks
    found = forward_backward(sae, x, COEFFICIENT, 1.0, 0.5)
    return {**found._asdict(), **{key: p.grad for key, p in sae.named_parameters()}}


def test_the_steps_of_thresholded_saes_can_be_taken_in_pieces_once_no_rank_over_the_batch_matters():
    assert {"relu", "gated", "jumprelu_cold", "paper_jumprelu", "jumprelu_qf", "paper_gemma_scope_2"} <= {*SEPARABLE}
    assert not {"topk", "batchtopk", "matryoshka"} & {*SEPARABLE} and not make("jumprelu").separable(0.0)


def test_an_architecture_with_a_step_of_its_own_is_not_taken_in_pieces_unless_it_says_so():
    class Mine(ReLU):
        def step(self, x, coefficient, progress):
            return super().step(x, coefficient, progress)

    assert ReLU(4, 8, 2).separable(1.0) and not Mine(4, 8, 2).separable(1.0)


@pytest.mark.parametrize("name", SEPARABLE)
def test_a_step_in_pieces_has_the_losses_and_gradients_of_the_whole_one(name):
    x = data()
    wanted, found = (outcome(name, x, size) for size in (2**30, ROWS * DENSE_COPIES * 4 * D_SAE))
    assert wanted["fired"].any()
    torch.testing.assert_close(found, wanted)


class OtherRank(SingleRank):
    """A second rank, whose parts of the sums are given."""

    def __init__(self, *parts):
        self.parts, self.asked = parts, 0

    def all_reduce_(self, tensors):
        self.asked += 1
        for tensor, part in zip(tensors, self.parts, strict=True):
            tensor += part


def test_what_a_loss_takes_from_the_batch_is_summed_over_pieces_and_ranks():
    x = data()
    found = []
    for size in (2**30, ROWS * DENSE_COPIES * 4 * D_SAE):
        other = OtherRank(torch.linspace(0, 9, D_SAE).double(), torch.tensor(40.0).double())
        found.append(outcome("jumprelu_qf", x, size, other))
        assert other.asked == 1  # as often as the other rank, whose step may be of another kind
    torch.testing.assert_close(found[1], found[0])
    assert not torch.equal(found[0]["threshold"], outcome("jumprelu_qf", x, 2**30)["threshold"])


class Peak(TorchDispatchMode):
    """The most bytes that were allocated within it at a time."""

    def __init__(self):
        super().__init__()
        self.sizes, self.live, self.most = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(found):
            if isinstance(x, torch.Tensor) and (storage := x.untyped_storage())._cdata not in known | self.sizes.keys():
                self.add(storage)
        return found

    def add(self, storage):
        at, size = storage._cdata, storage.nbytes()
        self.sizes[at] = size
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self.remove, at)

    def remove(self, at):
        self.live -= self.sizes.pop(at)


WIDTH, BATCH, D = 4096, 256, 8


def peak(name, rows, dense=True):
    sae = make(name, d_in=D, d_sae=WIDTH).float()
    x = data(batch=BATCH, d_in=D).float()
    sae.execution.dense, sae.execution.dense_bytes = dense, rows * DENSE_COPIES * 4 * WIDTH
    with Peak() as counted:
        forward_backward(sae, x, COEFFICIENT.float(), 1.0, 1.0)
    return counted.most


def weights_bytes(name):
    return sum(p.nbytes for p in make(name, d_in=D, d_sae=WIDTH).float().parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", SEPARABLE)
def test_a_dense_step_holds_no_more_than_its_bound_beside_gradients(name):
    whole, pieces = peak(name, BATCH), peak(name, 32)
    assert whole < DENSE_COPIES * 4 * BATCH * WIDTH + 2 * weights_bytes(name)
    assert pieces < DENSE_COPIES * 4 * 32 * WIDTH + 2 * weights_bytes(name) < whole / 2
