"""float32 products by numpy: the same numbers, and only where they are meant to be."""
import copy

import pytest
import torch
from torch import nn

from saesweep import blas


@pytest.fixture(params=[False, True])
def numpy(request, monkeypatch):
    monkeypatch.setattr(blas, "numpy_is_faster", lambda: request.param)
    return request.param


def test_either_way_it_is_the_product(numpy):
    x, W = torch.randn(33, 640, generator=torch.Generator().manual_seed(0)), torch.randn(100, 640)
    torch.testing.assert_close(blas.product(x, W).double(), x.double() @ W.double().T, rtol=0, atol=1e-4)


def test_layers_give_the_same_numbers_with_and_without_a_gradient(numpy):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(24, 48, bias=False), nn.GELU(), nn.Linear(48, 7), nn.Linear(7, 5, bias=False))
    fast = copy.deepcopy(plain).requires_grad_(False)
    blas.speed_up_(fast)
    x = torch.randn(2, 3, 24, requires_grad=True)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fast(x[0, 0]), plain(x[0, 0]), rtol=1e-5, atol=1e-6)
    of_fast, of_plain = (torch.autograd.grad(net(x).square().sum(), x)[0] for net in (fast, plain))
    torch.testing.assert_close(of_fast, of_plain, rtol=1e-5, atol=1e-6)


def test_only_float32_layers_without_a_bias_are_changed(numpy):
    net = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4, bias=False).bfloat16(), nn.LayerNorm(4)])
    blas.speed_up_(net)
    changed = [type(layer).__module__ == "saesweep.blas" for layer in net]
    assert changed == [numpy, False, False, False]
