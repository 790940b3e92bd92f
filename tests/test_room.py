"""Lists with room for entries whose number the host does not wait for: equal to counted ones, and never short of an entry."""
import pytest
import torch
from test_contract import COEFFICIENT, make, settings

from saesweep.arch import latents
from saesweep.arch.ops import entries, ops_for
from saesweep.arch.ops.room import ALWAYS_SPARE, SPARE, Room
from saesweep.lm.hooks import HookPoint
from saesweep.runtime import distributed
from saesweep.training.build import build
from saesweep.training.member import Member
from saesweep.training.pieces import forward_backward

pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
from mock_gpu import TRITON

from saesweep.arch.ops import gpu

pytestmark = pytest.mark.kernels
D_IN, D_SAE, ROWS = 8, 24, 6


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(TRITON)


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch):
    monkeypatch.setattr(latents, "ops_for", lambda x: gpu if x.dtype == torch.float32 else ops_for(x))
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 1)


def chosen(room):
    u, W, zero = drawn(ROWS, D_IN), drawn(D_SAE, D_IN, seed=1), torch.zeros(D_SAE, device=TRITON)
    return gpu.choose(u, W, zero, zero + 3.0, 0, room=room)


@pytest.mark.slow
def test_a_list_with_room_has_the_entries_of_a_counted_one_and_zeros():
    wanted, room = chosen(None), Room()
    n = len(wanted[1])
    assert n > 4 and all(torch.equal(a, b) for a, b in zip(chosen(room), wanted, strict=True))
    assert not room.overflowed() and room.entries == n + n // SPARE
    starts, *rest = chosen(room)
    assert torch.equal(starts, wanted[0]) and len(rest[0]) == room.entries > n
    assert all(torch.equal(a[:n], b) for a, b in zip(rest, wanted[1:], strict=True)) and not rest[2][n:].any()
    assert (rest[0] < ROWS).all() and (rest[1] < D_SAE).all() and not room.overflowed()


def test_a_list_that_overflows_its_room_is_cut_within_it_and_said_to_be():
    wanted, room = chosen(None), Room(4)
    starts, rows, columns, values = chosen(room)
    assert int(starts[-1]) == 4 == len(rows) and torch.equal(columns, wanted[2][:4]) and torch.equal(values, wanted[3][:4])
    assert room.overflowed() and room.entries is None


def test_a_list_that_may_be_slower_than_dense_products_is_counted():
    room = Room(ROWS * D_SAE + 1)
    assert len(chosen(room)[1]) == len(chosen(None)[1]) and not room.overflowed()


def after(made, *found, most=1000):
    """What the next step has, after steps that have found so many entries."""
    for number in found:
        number = torch.tensor(number, device=TRITON)
        if made.dense:
            made.note(number, most)
        else:
            made.of(number, most)
        made.overflowed()
    return made.size


def test_fixed_room_stays_while_it_suffices_and_is_not_far_too_large():
    assert Room(fixed=True).size == "unused"
    made = Room(fixed=True)
    first = 100 + 100 // SPARE + ALWAYS_SPARE
    assert after(made, 100) == first == after(made, first, 80, 40) and made.entries is not None
    assert after(made, 10) == 10 + 10 // SPARE + ALWAYS_SPARE
    assert after(made, 500) is None, "a step that lacked entries: the next one counts"
    assert after(made, 500) == 500 + 500 // SPARE + ALWAYS_SPARE


def test_steps_are_dense_without_counting_until_a_list_and_its_room_are_faster():
    made = Room()
    assert after(made, 900) == "dense" == after(made, 2000) == after(made, 601)
    assert after(made, 600) == 750 and after(made, 700) == 875 and after(made, 820) == "dense"


@pytest.mark.slow
def test_a_dense_step_that_would_be_taken_in_pieces_counts_whether_a_list_is_shorter():
    sae = make("relu", d_sae=D_SAE, d_in=D_IN, k=2).float().to(TRITON)
    sae.execution.room, sae.execution.dense_bytes = Room(dense=True), 1
    forward_backward(sae, drawn(ROWS, D_IN), COEFFICIENT.float().to(TRITON), 1.0, 1.0)
    assert sae.execution.room.entries is not None and not sae.execution.room.dense


def test_room_for_dead_latents_is_none_until_one_is_dead():
    made = Room(fixed=True)
    assert after(made, 0, most=None) == 0 == after(made, 0, most=None)
    assert after(made, 1, most=None) is None and after(made, 1, most=None) == 1 + ALWAYS_SPARE
    assert after(made, 0, most=None) == 1 + ALWAYS_SPARE


def taken(name, room, seeds=(1,)):
    """Gradients, formed, losses and L0 of the last of the steps."""
    sae = make(name, d_sae=D_SAE, d_in=D_IN, k=2).float().to(TRITON)
    sae.execution.room = room
    for seed in seeds:
        sae.zero_grad()
        sae.execution.deferred_gradients = []
        found = forward_backward(sae, drawn(ROWS, D_IN, seed=seed), COEFFICIENT.float().to(TRITON), 1.0, 1.0)
    gradients = {name: p.grad for name, p in sae.named_parameters() if p.grad is not None}
    for p, sums in sae.execution.deferred_gradients:
        name = next(name for name, q in sae.named_parameters() if q is p)
        gradients[name] = gradients.get(name, 0) + gpu.sum_columns(*sums)
    return gradients | found.losses | {"l0": found.l0, "fired": found.fired}, len(sae.execution.deferred_gradients)


@pytest.mark.slow
@pytest.mark.parametrize("room", [Room, lambda: Room(3)], ids=["with room", "overflowed"])
@pytest.mark.parametrize("name", ["relu", "gated", "jumprelu"])
def test_a_step_with_room_or_taken_again_is_that_with_a_counted_list(name, room):
    """With room: that of the first step. Overflowed: what the cut list has left is thrown away."""
    made = room()
    (found, deferred), (wanted, as_many) = taken(name, made, (2, 1) if made.entries is None else (1,)), taken(name, None)
    assert deferred == as_many and found.keys() == wanted.keys() and wanted["l0"] > 1
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    assert made.entries > 3


def test_list_room_is_off_unless_asked_for_and_where_ranks_share_an_sae(monkeypatch):
    rooms = []
    for ranks, more in [(1, {}), (1, {"list_room": True}), (2, {"list_room": True})]:
        monkeypatch.setattr(distributed, "ranks_per_sae", lambda ranks=ranks: ranks)
        sae = build(settings("relu") | more, D_IN)
        rooms.append(Member("", HookPoint("", "output"), sae, None, {}).sae.execution.room)
    assert rooms == [None, Room(), None]
