"""The copy of W_enc in bf16 that the update on a GPU writes: as a pass of its own would, and never one of other weights."""
import copy
from dataclasses import replace

import pytest
import torch
from test_contract import COEFFICIENT, make, settings

from saesweep.arch import latents
from saesweep.arch.execution import SingleRank
from saesweep.arch.ops import entries, ops_for, plain
from saesweep.arch.ops.entries import Adam, Sums
from saesweep.arch.ops.rounded import Rounded
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.training import optimizer
from saesweep.training.calibration import meet_l0_
from saesweep.training.contract import require_contract
from saesweep.training.member import Member
from saesweep.training.module import SAESweep
from saesweep.training.optimizer import UnitRowAdam, parameter_group

pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
from mock_gpu import TRITON

from saesweep.arch.ops import gpu
from saesweep.arch.ops.gpu import candidates

pytestmark = pytest.mark.kernels
D_IN, D_SAE, ROWS, POINT = 8, 16, 4, HookPoint("", "output")
NUMBERS = Adam(clip=0.3, step_size=0.01, beta1=0.9, beta2=0.99, unbias=2.0, eps=1e-8)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(TRITON)


@pytest.mark.parametrize("formed", [False, True])
@pytest.mark.parametrize("d", [17, 48])
def test_the_update_writes_what_a_pass_of_its_own_would(formed, d):
    weight, share = drawn(9, d) * torch.logspace(-3, 3, 9, device=TRITON)[:, None], drawn(d, seed=1).abs()
    columns = torch.randint(9, (30,), generator=torch.Generator().manual_seed(2)).to(TRITON)
    sums = Sums(*plain.sort_by_column(columns, 9), columns % 8, drawn(30, seed=3), drawn(8, d, seed=4))
    kept = Rounded(share)
    for _ in range(2):  # the second time into the memory of the first
        gpu.adam(weight, plain.sum_columns(*sums) if formed else sums, 0 * weight, 0 * weight, NUMBERS, False, False, kept)
        low, norms, by = kept.of(weight)
        wanted = candidates.rounded(weight, share)
        assert torch.equal(low, wanted[0]) and torch.equal(low, weight.bfloat16()) and torch.equal(norms, wanted[1])
        assert torch.equal(by, share)
    assert kept.of(weight.clone()) is None


@pytest.fixture
def on_gpu(monkeypatch):
    """The GPU's operations, also on the CPU's tensors, in the interpreter; `made` lists the copies that a selection made."""
    made = []
    for module in (latents, optimizer):
        monkeypatch.setattr(module, "ops_for", lambda x: gpu if x.dtype == torch.float32 else ops_for(x))
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 1)
    known = candidates.rounded
    monkeypatch.setattr(candidates, "rounded", lambda m, factor: made.append(m) or known(m, factor))
    return made


def trained(name="topk", steps=1):
    """A module of one SAE after some steps."""
    node = settings(name)["arch"]
    sae = make(name, d_sae=D_SAE, d_in=D_IN, k=2).float().to(TRITON)
    sae.tokens_since_fired.zero_()  # AuxK would take most of the time
    member = Member(name, POINT, sae, None, node["optimizer"]).to(TRITON)
    module = SAESweep([member], steps=9, batch_tokens=ROWS, log_tokens=ROWS, dead_after=9)
    for seed in range(steps):
        stepped(module, seed)
    return module


def stepped(module, seed):
    member = module.members[0]
    member.step_(drawn(ROWS, D_IN, seed=seed), 1.0)
    module.optimizer.step_sae(0, member.sae)


def chosen(sae, x):
    return sae.step(x, COEFFICIENT.float().to(TRITON), 1.0).latents


def restored(module):
    """As after a kill: the next process has the checkpoint alone."""
    again = trained(steps=0)
    again.restore_(again.members[0], *copy.deepcopy(module.state_of(module.members[0])))
    return again


@pytest.mark.slow
def test_a_step_reads_the_copy_that_the_one_before_has_written(on_gpu):
    module = trained()
    sae = module.members[0].sae
    on_gpu.clear()
    stepped(module, 1)
    assert not any(m.shape == sae.W_enc_T.shape for m in on_gpu) and sae.execution.rounded_W.of(sae.W_enc_T) is not None


@pytest.mark.slow
def test_a_resumed_training_ranks_by_the_same_copy(on_gpu):
    module = trained()
    again = restored(module)
    kept = again.members[0].sae.execution.rounded_W
    assert kept.copy is None
    for one in (module, again):
        stepped(one, 1)
    wanted = module.members[0].sae.execution.rounded_W
    assert torch.equal(kept.share, wanted.share)
    for a, b in zip(kept.copy, wanted.copy, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(module.members[0].sae.parameters(), again.members[0].sae.parameters(), strict=True):
        assert torch.equal(a, b)


def loaded(sae):
    sae.load_state_dict({**sae.state_dict(), "W_enc_T": sae.W_enc_T.detach().flip(0)})


def imported(sae):
    sae.load_exported_({**sae.exported(), "W_enc": sae.W_enc.detach().flip(1).cpu()})


def written(sae):
    with torch.no_grad():
        sae.W_enc_T *= -1


def updated(sae):
    """By an optimizer that knows of no copy."""
    sae.execution.deferred_gradients = None
    sae.step(drawn(ROWS, D_IN), COEFFICIENT.float().to(TRITON), 1.0).losses["reconstruction"].backward()
    UnitRowAdam([parameter_group(sae, {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "clip": None})]).step()


def replaced(sae):
    sae.W_enc_T = torch.nn.Parameter(sae.W_enc_T.detach().flip(0))


def moved(sae):
    sae.double()
    sae.W_enc_T.data.neg_()
    sae.float()


@pytest.mark.slow
@pytest.mark.parametrize("change", [loaded, imported, written, updated, replaced, moved], ids=lambda change: change.__name__)
def test_after_a_change_of_the_weights_the_copy_is_made_anew(change, on_gpu):
    sae, x = trained().members[0].sae, drawn(ROWS, D_IN, seed=5)
    assert sae.execution.rounded_W.of(sae.W_enc_T) is not None
    change(sae)
    on_gpu.clear()
    found = chosen(sae, x)
    assert any(m.shape == sae.W_enc_T.shape for m in on_gpu), "the copy is stale"
    assert torch.equal(sae.execution.rounded_W.copy.low, sae.W_enc_T.bfloat16())
    torch.testing.assert_close(found.dense(), sae.encode(x), rtol=1e-4, atol=1e-5)


def test_calibration_and_folding_leave_the_copy_right(on_gpu):
    """They change biases and thresholds, which the copy does not have."""
    sae, x = trained("jumprelu").members[0].sae, drawn(ROWS, D_IN, seed=5)
    assert meet_l0_(sae, x) != 0
    sae.fold_(drawn(D_IN, seed=6), 2.0)
    assert torch.equal(sae.execution.rounded_W.copy.low, sae.W_enc_T.bfloat16())
    found = chosen(sae, x).dense()
    torch.testing.assert_close(found, sae.encode(x), rtol=1e-4, atol=1e-5)
    assert found.any()


def test_the_copy_is_dropped_when_the_training_ends(on_gpu):
    module = trained()
    module.on_train_end()
    kept = module.members[0].sae.execution.rounded_W
    assert kept.copy is None and kept.of(module.members[0].sae.W_enc_T) is None


@pytest.mark.slow
def test_the_first_latents_of_a_matryoshka_have_a_copy_of_their_own(on_gpu):
    sae, x = trained("matryoshka").members[0].sae, drawn(ROWS, D_IN, seed=5)
    sae.execution = replace(sae.execution, deferred_gradients=None, ranks=SingleRank())  # as after the training
    part = sae.prefix(sae.prefixes[2])
    assert part.execution.rounded_W.of(part.W_enc_T) is None
    found = part.preactivations(x, above=0.1)
    assert torch.equal(part.execution.rounded_W.copy.low, part.W_enc_T.bfloat16())
    assert torch.equal(found.dense() > 0, torch.addmm(part.b_enc, x - part.b_dec, part.W_enc) > 0.1)


def test_an_architecture_that_writes_w_enc_unnoticed_is_refused():
    sae = make("topk").float()
    sae.constrain_ = lambda: sae.W_enc_T.data.mul_(0.5)
    with pytest.raises(UsageError, match=r"^arch=topk: it changes W_enc_T through `\.data`"):
        require_contract(sae, torch.randn(64, sae.d_in), settings("topk")["arch"])
    sae.constrain_ = lambda: sae.W_enc_T.detach().mul_(0.5)
    require_contract(sae, torch.randn(64, sae.d_in), settings("topk")["arch"])
