"""The candidates of the GPU's selection: bf16 emulated on the CPU misses none of 10^5 entries and lists few others."""
import pytest
import torch

from saesweep.arch.ops import entries
from saesweep.arch.ops.entries import starts_of

pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
from mock_gpu import TRITON

from saesweep.arch.ops.gpu import candidates

pytestmark = pytest.mark.kernels


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_matrix_is_rounded_to_bf16_and_has_the_4_norms_of_its_rows():
    x = drawn(7, 48, seed=0) * torch.logspace(-3, 3, 7)[:, None]
    factor = drawn(48, seed=1).abs()
    low, norms = (tensor.cpu() for tensor in candidates.rounded(x.to(TRITON), factor.to(TRITON)))
    assert torch.equal(low, x.bfloat16())
    torch.testing.assert_close(norms, (x * factor).pow(4).sum(1).pow(0.25))


def near(u, W_enc_T, bound):
    """Which entries the kernels list, and which they should, for pi > bound without biases."""
    rough = (u.bfloat16().float() @ W_enc_T.bfloat16().float().T).bfloat16().float()
    share = entries.coordinate_share(u)
    four = [x.pow(4).sum(1).pow(0.25) for x in (u / share, W_enc_T * share)]
    error = candidates.ROUNDING.value * rough.abs() + candidates.SLACK * four[0][:, None] * four[1]
    return rough + error > bound, u.double() @ W_enc_T.double().T > bound


@pytest.mark.parametrize("outlier", [1.0, 20.0], ids=["even coordinates", "one coordinate 20 times as large"])
def test_no_entry_is_missed_and_few_are_listed_in_vain(outlier):
    u, W_enc_T = drawn(1024, 256, seed=0), torch.nn.functional.normalize(drawn(4096, 256, seed=1))
    u[:, 3] *= outlier
    bound = float((u[:256] @ W_enc_T.T).flatten().kthvalue(256 * 4096 * 31 // 32).values)
    listed, wanted = near(u, W_enc_T, bound)
    assert wanted.sum() > 10**5 and not (wanted & ~listed).any()
    assert listed.sum() < 1.1 * wanted.sum()


@pytest.mark.slow
def test_the_kernels_list_what_the_emulation_lists(monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW_ON_GPU", 0)
    u, W_enc_T = drawn(24, 64, seed=2), drawn(300, 64, seed=3)
    bound = torch.full((300,), 14.0)
    starts, rows, columns, _ = (x.cpu() for x in candidates.choose(*(x.to(TRITON) for x in (u, W_enc_T, 0 * bound, bound)), 0))
    listed, wanted = near(u, W_enc_T, 14.0)
    assert torch.equal(torch.stack([rows, columns], 1), listed.nonzero()) and wanted.sum() > 100
    assert torch.equal(starts, starts_of(listed.sum(1)))
