"""What is kept per latent: the definitions, and that the parts of a text merge into the whole bit for bit."""
import numpy as np
import pytest
import torch

from saesweep.study import kernels
from saesweep.study.accumulator import BYTES, Accumulator, active
from saesweep.study.keys import keys

D_SAE, ROWS, DOCUMENT = 24, 900, 30


def bin_of(value):
    """Compiled alone: numba inlines it elsewhere."""
    return int(kernels.bin_of(np.float32(value)))


def test_bins_are_those_of_the_reference_and_exact_at_their_edges():
    assert [bin_of(value) for value in (1, 0.5, 3, 1e-9)] == [64, 60, 70, 0]
    for quarter in range(-40, 40):
        edge = np.float32(2.0 ** (quarter / 4))
        edge = np.nextafter(edge, np.float32(np.inf)) if np.log2(np.float64(edge)) * 4 < quarter else edge
        assert bin_of(edge) == 64 + quarter and bin_of(np.nextafter(edge, np.float32(0))) == 63 + quarter
    assert bin_of(1e30) == 127 and bin_of(1e-45) == 0


@pytest.fixture(scope="module")
def latents():
    """[ROWS, D_SAE] with a latent that never fires, one that always does, and values that repeat."""
    random = np.random.default_rng(0)
    f = (random.integers(1, 12, (ROWS, D_SAE)) / 4).astype(np.float32)
    f *= random.random((ROWS, D_SAE)) < np.linspace(0, 1, D_SAE)
    return torch.from_numpy(f)


def kept():
    return np.arange(D_SAE) % 3 == 0


def read(f, documents, dense_tokens=100):
    """The accumulator of these documents, one after the other."""
    state = Accumulator(7, kept())
    for number in documents:
        mine = np.arange(number * DOCUMENT, (number + 1) * DOCUMENT)
        for rows in np.array_split(mine, 2):
            state.add(active(f[rows], 0.5), rows, np.full(len(rows), number, np.int32), rows < dense_tokens)
    return state


def same(one, other):
    assert one.keys() == other.keys()
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_what_is_kept_is_what_a_dense_matrix_says(latents):
    state, f = read(latents, range(ROWS // DOCUMENT)).arrays, latents.numpy() / np.float32(0.5)
    assert state["fires"].tolist() == (f > 0).sum(0).tolist()
    assert state["documents"].tolist() == (f.reshape(-1, DOCUMENT, D_SAE) > 0).any(1).sum(0).tolist()
    for i in range(D_SAE):
        (positions,) = np.nonzero(f[:, i])
        values, key = f[positions, i], keys(7, np.array([i]), positions)
        bins = np.floor(4 * np.log2(values.astype(np.float64))).astype(int) + 64
        assert state["histogram"][i].tolist() == np.bincount(bins, minlength=128).tolist()
        top, sample = np.lexsort((positions, -values))[:20], np.argsort(key)[:100]
        assert state["top.positions"][i, : len(top)].tolist() == positions[top].tolist()
        assert state["top.values"][i, : len(top)].tolist() == values[top].tolist()
        assert state["sample.positions"][i, : len(sample)].tolist() == positions[sample].tolist()
        assert state["sample.values"][i, : len(sample)].tolist() == values[sample].tolist()
        assert (state["top.positions"][i, len(top) :] == -1).all() and not state["sample.values"][i, len(sample) :].any()


@pytest.mark.parametrize("seed", range(3))
def test_documents_in_any_order_in_three_parts_merge_into_the_whole_bit_for_bit(latents, seed):
    whole, order = read(latents, range(ROWS // DOCUMENT)), np.random.default_rng(seed).permutation(ROWS // DOCUMENT)
    assert same(read(latents, order).arrays, whole.arrays)
    parts = [read(latents, part) for part in np.array_split(order, 3)]
    merged = Accumulator(7, kept())
    for part in parts:
        merged.merge(part.arrays)
    assert same(merged.arrays, whole.arrays)


def test_all_activations_are_listed_of_some_latents_and_of_all_latents_at_the_beginning(latents):
    f = latents.numpy()
    lists = read(latents, range(ROWS // DOCUMENT)).lists()
    found = {*zip(lists["hits.latents"].tolist(), lists["hits.positions"].tolist(), strict=True)}
    assert found == {(i, p) for p, i in zip(*np.nonzero(f), strict=True) if kept()[i]}
    assert len(found) == len(lists["hits.values"])
    dense = {*zip(lists["dense_hits.latents"].tolist(), lists["dense_hits.positions"].tolist(), strict=True)}
    assert dense == {(i, p) for p, i in zip(*np.nonzero(f[:100]), strict=True)}
    for p, i, value in zip(lists["dense_hits.positions"], lists["dense_hits.latents"], lists["dense_hits.values"], strict=True):
        assert value == 2 * f[p, i]


def test_a_latent_takes_27_hundred_bytes_of_a_half():
    state = Accumulator(7, kept())
    assert sum(array.nbytes for array in state.arrays.values()) == BYTES * D_SAE and BYTES == 2768


def test_a_value_above_0_never_becomes_0_by_the_change_of_units():
    tiny = np.finfo(np.float32).smallest_subnormal
    found = active(torch.tensor([[0.0, float(tiny), -1.0, 2.0]]), 8.0)
    assert found.columns.tolist() == [1, 3] and found.values.tolist() == [tiny, 0.25] and found.starts.tolist() == [0, 2]


def test_tensors_of_another_device_give_the_same(latents):
    class Elsewhere(torch.Tensor):
        device = torch.device("meta")

    there, here = active(latents.as_subclass(Elsewhere), 0.5), active(latents, 0.5)
    assert all(np.array_equal(one, other) for one, other in zip(there, here, strict=True))
