"""The sparse operations: numba's on the CPU and Triton's (in the interpreter) equal those of PyTorch alone."""
import numpy as np
import pytest
import torch
from mock_gpu import TRITON
from torch.utils._pytree import tree_leaves, tree_map

from saesweep.arch import ops
from saesweep.arch.ops import cpu, entries, int16, plain
from saesweep.arch.ops.entries import Adam, Sums, starts_of

pytestmark = pytest.mark.kernels
SIZES = [(33, 12, 96), (16, 48, 257)]  # batch, d_in, d_sae
BACKENDS = ["cpu", "gpu"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "cpu":
        return cpu
    pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
    from saesweep.arch.ops import gpu

    return OnCuda(gpu) if TRITON == "cuda" else gpu


class OnCuda:
    """The module's operations on CUDA copies of CPU tensors; results and changed inputs are copied back."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        def operation(*given):
            on_gpu = tree_map(lambda x: x.cuda() if isinstance(x, torch.Tensor) else x, given)
            found = getattr(self.module, name)(*on_gpu)
            for x, changed in zip(tree_leaves(given), tree_leaves(on_gpu), strict=True):
                if isinstance(x, torch.Tensor):
                    x.copy_(changed)
            return tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, found)

        return operation


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SIZES, ids=str)
def lists(request):
    """A list of a tenth of all entries, with an empty row and an empty column; its values, some of them zero; x, W_dec."""
    batch, d_in, d_sae = request.param
    mask = torch.rand(batch, d_sae, generator=torch.Generator().manual_seed(1)) < 0.1
    mask[3], mask[:, 5] = False, False
    rows, columns = mask.nonzero(as_tuple=True)
    f = drawn(len(rows)).relu()
    f[::7] = 0
    return starts_of(mask.sum(1)), rows, columns, f, drawn(batch, d_in, seed=2), drawn(d_sae, d_in, seed=3), drawn(d_in, seed=4)


def test_reconstruct_equals_its_definition(backend, lists):
    starts, rows, columns, f, x, W_dec, b_dec = lists
    found = backend.reconstruct(starts, rows, columns, f, W_dec, b_dec, x)
    torch.testing.assert_close(found, plain.reconstruct(starts, rows, columns, f, W_dec, b_dec, x), rtol=1e-4, atol=1e-4)
    dense = torch.zeros(len(x), len(W_dec)).index_put((rows, columns), f)
    torch.testing.assert_close(found[0], dense @ W_dec + b_dec - x, rtol=1e-4, atol=1e-4)


def test_sums_over_columns_equal_their_definition(backend, lists):
    _, rows, columns, f, x, W_dec, _ = lists
    order, starts = backend.sort_by_column(columns, len(W_dec))
    for one, other in zip((order, starts), plain.sort_by_column(columns, len(W_dec)), strict=True):
        assert torch.equal(one, other)
    found = backend.sum_columns(order, starts, rows, f, x)
    dense = torch.zeros(len(x), len(W_dec)).index_put((rows, columns), f)
    torch.testing.assert_close(found, dense.T @ x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, plain.sum_columns(order, starts, rows, f, x), rtol=1e-4, atol=1e-4)


def test_fired_columns_equal_their_definition(backend, lists):
    _, _, columns, f, _, W_dec, _ = lists
    assert torch.equal(backend.fired(columns, f, len(W_dec)), plain.fired(columns, f, len(W_dec)))


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 7])
def test_the_chosen_entries_and_their_order_equal_the_definition(backend, k, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 0)
    u, W_enc_T, b_enc = drawn(40, 24), drawn(300, 24, seed=1), drawn(300, seed=2)
    above = None if k else torch.full((300,), 9.0) + drawn(300, seed=3)
    starts, rows, columns, values = backend.choose(u, W_enc_T, b_enc, above, k)
    wanted = plain.choose(u, W_enc_T, b_enc, above, k)
    assert torch.equal(starts_of(torch.bincount(rows, minlength=40)), starts) and len(rows) < 1.3 * len(wanted[1])
    kept = values != 0  # the GPU lists a few more, to avoid a synchronisation
    assert kept.all() or backend is not cpu
    rows, columns, values = rows[kept], columns[kept], values[kept]
    assert torch.equal(rows, wanted[1]) and len(rows) > 40
    dense = [torch.zeros(40, 300).index_put((rows, c), v) for c, v in ((columns, values), wanted[2:])]
    torch.testing.assert_close(*dense, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="needs a processor with AVX2")
@pytest.mark.parametrize(("n", "m", "d"), [(5, 16, 2), (203, 48, 640), (64, 4096, 30)])
def test_the_product_in_int16_is_exact_for_the_largest_sums(n, m, d):
    most, random = int16.largest(d), np.random.default_rng(0)
    left, right = (random.integers(-most, most, (rows, d), dtype=np.int16, endpoint=True) for rows in (n, m))
    left[0], right[:2] = most, [[most], [-most]]
    score = np.empty((n, m), np.int32)
    int16.product(left, right, score)
    assert np.array_equal(score, left.astype(np.int64) @ right.astype(np.int64).T)
    assert score[0, 0] == -score[0, 1] == d * most**2 > 2**31 - 2**31 // 100


@pytest.mark.slow
def test_no_list_is_made_of_too_many_entries(backend):
    u, W_enc_T, zero = drawn(40, 24), drawn(300, 24, seed=1), torch.zeros(300)
    for chosen in (backend.choose(u, W_enc_T, zero, zero, 0), backend.choose(u, W_enc_T, zero, None, 200)):
        assert chosen is None


def updated(backend, grad, weight, beta1, unit):
    """The weight and its moments after a step."""
    state = [weight.clone(), drawn(*weight.shape, seed=2), drawn(*weight.shape, seed=3).square()]
    numbers = Adam(clip=0.3, step_size=0.01, beta1=beta1, beta2=0.99, unbias=2.0, eps=1e-8)
    backend.adam(state[0], grad, *state[1:], numbers, unit)
    return state


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("beta1", [0.9, 0.0])
@pytest.mark.parametrize("shape", [(30, 17), (1, 40)], ids=str)
def test_the_update_of_rows_equals_its_definition(backend, shape, beta1, unit):
    weight, grad = drawn(*shape), drawn(*shape, seed=1)
    weight /= weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(backend.grad_and_norms(grad, weight, unit), plain.grad_and_norms(grad, weight, unit))
    found = updated(backend, grad, weight, beta1, unit)
    torch.testing.assert_close(found, updated(plain, grad, weight, beta1, unit), rtol=1e-5, atol=1e-6)
    assert not torch.equal(found[0], weight)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [True, False])
def test_an_update_returns_the_norms_of_the_gradient_before_the_clip(backend, lists, unit):
    """By row, formed or not; a vector may be cut into several rows."""
    _, rows, columns, f, x, weight, _ = lists
    weight /= weight.norm(dim=1, keepdim=True)
    sums = Sums(*backend.sort_by_column(columns, len(weight)), rows, f, x)
    formed = plain.sum_columns(*sums)
    wanted = plain.grad_and_norms(formed, weight, unit)[1]
    numbers = Adam(clip=0.3, step_size=0.01, beta1=0.9, beta2=0.99, unbias=2.0, eps=1e-8)
    for module, grad in [(backend, sums), (backend, formed), (plain, sums)]:
        state = [weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)]
        torch.testing.assert_close(module.adam(state[0], grad, *state[1:], numbers, unit, True), wanted, rtol=1e-4, atol=1e-5)
    vectors = [drawn(1, 2048, seed=seed).square() for seed in range(4)]
    found = backend.adam(vectors[0], vectors[1], vectors[2], vectors[3], numbers, False, True)
    torch.testing.assert_close(found.sum(), vectors[1].square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("beta1", [0.9, 0.0])
def test_a_deferred_gradient_gives_the_same_update(backend, lists, beta1, unit):
    _, rows, columns, f, x, weight, _ = lists
    weight /= weight.norm(dim=1, keepdim=True)
    sums = Sums(*backend.sort_by_column(columns, len(weight)), rows, f, x)
    formed = plain.sum_columns(*sums)
    measured = plain.grad_and_norms(formed, weight, unit)
    for module in (backend, plain):
        torch.testing.assert_close(module.grad_and_norms(sums, weight, unit), measured, rtol=1e-4, atol=1e-5)
    wanted = updated(plain, formed, weight, beta1, unit)
    for module in (backend, plain):
        torch.testing.assert_close(updated(module, sums, weight, beta1, unit), wanted, rtol=1e-4, atol=1e-5)


def test_fp32_on_a_cpu_uses_compiled_kernels_and_fp64_plain_pytorch():
    assert ops.ops_for(torch.zeros(1)) is cpu and ops.ops_for(torch.zeros(1, dtype=torch.float64)) is plain


@pytest.mark.slow
def test_sums_over_columns_of_many_hundred_entries_equal_their_definition(backend):
    """Longer than the spans that the GPU adds up apart, and beginning within one."""
    batch, d_in, d_sae = 700, 12, 7
    mask = torch.zeros(batch, d_sae, dtype=torch.bool)
    mask[::3, 1] = mask[:, 4] = mask[::9, 6] = True
    rows, columns = mask.nonzero(as_tuple=True)
    f, x, weight = drawn(len(rows)), drawn(batch, d_in, seed=1), drawn(d_sae, d_in, seed=2)
    sums = Sums(*backend.sort_by_column(columns, d_sae), rows, f, x)
    wanted = torch.zeros(batch, d_sae).index_put((rows, columns), f).T @ x
    torch.testing.assert_close(backend.sum_columns(*sums), wanted, rtol=1e-4, atol=1e-4)
    found, squares = backend.grad_and_norms(sums, weight, False)
    torch.testing.assert_close((found, squares), (wanted, wanted.square().sum(1)), rtol=1e-4, atol=1e-4)


def test_merged_sums_are_the_sum_of_those_merged(backend):
    parts = []
    for seed, (batch, n) in enumerate([(9, 20), (5, 0), (4, 30)]):
        draw = torch.Generator().manual_seed(seed)
        columns, rows = torch.randint(8, (n,), generator=draw), torch.randint(batch, (n,), generator=draw)
        parts.append(Sums(*backend.sort_by_column(columns, 8), rows, drawn(n, seed=seed), drawn(batch, 6, seed=seed)))
    wanted = sum(plain.sum_columns(*part) for part in parts)
    torch.testing.assert_close(backend.sum_columns(*entries.merged(parts)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("room", [0, 3])
def test_lists_of_the_same_columns_make_one_whose_sums_are_theirs(room):
    """room: at the end of each list, which is not used."""
    random, parts = torch.Generator().manual_seed(0), list[Sums]()
    for size, rows in ((50, 9), (7, 4), (0, 1)):
        columns = torch.randint(12, (size,), generator=random)
        order = torch.cat([columns.argsort(stable=True), torch.arange(size, size + room)])
        starts = entries.starts_of(torch.bincount(columns, minlength=12))
        places = torch.randint(rows, order.shape, generator=random)
        weights, matrix = (torch.randn(shape, dtype=torch.float64, generator=random) for shape in (order.shape, (rows, 3)))
        parts.append(Sums(order, starts, places, weights, matrix))
    whole = entries.merged(parts)
    torch.testing.assert_close(plain.formed(whole), sum(map(plain.formed, parts)))
    assert whole.order.sort().values.tolist() == list(range(len(whole.order)))
