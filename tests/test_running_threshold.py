"""BatchTopK's selection: the smallest value that is kept on a GPU; the first batch of an SAE too wide for dense products."""
import pytest
import torch
from mock_gpu import gpu

from saesweep.arch.batchtopk import BatchTopK
from saesweep.arch.execution import DENSE_COPIES
from saesweep.arch.running_threshold import kth_largest

VALUES = {
    "random": torch.randn(997, generator=torch.Generator().manual_seed(0)),
    "ties": torch.randint(-3, 4, (997,), generator=torch.Generator().manual_seed(1)).float(),
    "all equal": torch.full((64,), 0.1),
    "negative": -torch.rand(333, generator=torch.Generator().manual_seed(2)),
    "one": torch.tensor([2.5]),
}


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)  # kthvalue raises on a GPU
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_kth_largest_is_the_same_value_on_a_gpu_without_kthvalue(values, deterministic, monkeypatch):
    ranks = sorted({1, 2, len(values) // 3 + 1, len(values)} & {*range(1, len(values) + 1)})
    wanted = [values.kthvalue(len(values) - k + 1).values for k in ranks]
    assert all(torch.equal(kth_largest(values, k), one) for k, one in zip(ranks, wanted, strict=True))
    with gpu():
        on_gpu = values.to("cuda")
        monkeypatch.setattr(torch.Tensor, "kthvalue", None)
        found = [kth_largest(on_gpu, k).cpu() for k in ranks]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("limit", [None, 0.2], ids=["", "with a handicap"])
def test_the_first_batch_of_an_sae_too_wide_for_dense_products_is_a_list_of_the_same_latents(limit):
    found = {}
    for rows in (256, 32):
        torch.manual_seed(0)
        sae = BatchTopK(12, 512, 4, threshold_tokens=3200, alpha=0.0, k_aux=1, aux_tokens=100, frequency_limit=limit).double()
        x = torch.randn(256, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        sae.execution.dense_bytes = rows * DENSE_COPIES * 4 * sae.d_sae
        found[rows] = sae.select(x), sae.batch_threshold.last
    (whole, last), (listed, last_listed) = found.values()
    assert whole.entries is None and listed.entries is not None
    assert int((listed.values > 0).sum()) == 4 * 256 and last == last_listed
    torch.testing.assert_close(listed.dense(), whole.dense())
