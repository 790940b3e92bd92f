"""`list_active` lists what `encode` computes: every entry, but those within rounding of their bound."""
import pytest
import torch
from test_contract import D_IN, YAMLS, K, make

from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.ops import cpu, entries

D_SAE, ROWS = 512, 300
ROUNDING = 1e-5


def sparse(name):
    """An SAE in fp32 of which few latents are active; the rows of W_enc differ in length."""
    sae = make(name, d_sae=D_SAE, d_in=48).float()
    with torch.no_grad():
        sae.W_enc_T *= torch.linspace(0.5, 2, D_SAE)[:, None]
        sae.b_enc -= 0.5
    return sae


def outliers(seed=0):
    """Rows that integers represent badly: a few coordinates of some are a hundred times as large as the others."""
    x = torch.randn(ROWS, 48, generator=torch.Generator().manual_seed(seed)) / 7
    x[::3, 5] *= 100
    x[1::3, ::7] *= 30
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", ["int8", "int16", "fp32"])
@pytest.mark.parametrize("name", YAMLS)
@torch.no_grad()
def test_a_list_misses_no_entry_of_a_dense_product(name, kind, monkeypatch):
    if kind == "int16" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("needs AVX2")
    monkeypatch.setattr(cpu, "rough_in", lambda: kind)
    monkeypatch.setattr(entries, "DENSE_BELOW", 2)
    sae, x = sparse(name), outliers()
    found, f = sae.list_active(x), sae.double().encode(x.double()).float()
    assert found.entries is not None and 0 < (f > 0).float().mean() < 0.3
    off = (found.dense() - f).abs()
    near = (f.abs() < ROUNDING) | (found.dense() < ROUNDING)  # at the edge of being active
    assert off[~near].max() < ROUNDING * float(f.max())
    edges = (off > ROUNDING * f.max()).sum()
    assert edges == 0 if name in ("relu", "gated") else edges <= 2


@torch.no_grad()
def test_a_row_does_not_depend_on_those_beside_it():
    sae, x = sparse("jumprelu"), outliers()
    whole, part = sae.list_active(x).dense(), sae.list_active(x[100:150]).dense()
    assert torch.equal(whole[100:150], part)


@torch.no_grad()
def test_where_many_are_active_and_for_an_architecture_that_lists_none_it_is_dense():
    sae, x = make("relu").float(), torch.randn(64, D_IN)
    assert sae.list_active(x).entries is None and torch.equal(sae.list_active(x).dense() > 0, sae.encode(x) > 0)
    topk = make("topk").float()
    listed = super(type(topk), topk).list_active(x)
    assert listed.entries is None and torch.equal(listed.values, topk.encode(x)) and (listed.l0 <= K)


@torch.no_grad()
def test_an_architecture_that_says_anew_what_is_active_is_listed_by_it():
    class Twice(JumpReLU):
        def activate(self, pi):
            return 2 * super().activate(pi)

    given = make("jumprelu")
    sae = Twice(given.d_in, given.d_sae, 4, bandwidth=1e-3, init_threshold=1e-3, relative=True, warm_start=0.0,
                threshold_tokens=1)
    x = torch.randn(64, given.d_in)
    assert torch.equal(sae.list_active(x).dense(), sae.encode(x))
