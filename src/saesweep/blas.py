"""float32 products by numpy's OpenBLAS where torch's own are slow.

torch multiplies by Intel's MKL, which on an AMD EPYC (Zen 3, AVX2) gives 70 to 110 GFLOP/s where OpenBLAS gives 120 to
130; with the 262,144 rows of a Gemma's head 75 and 127 (docs/benchmarks.md).
"""
import platform
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


@cache
def numpy_is_faster() -> bool:
    told = Path("/proc/cpuinfo")
    maker = told.read_text() if told.is_file() else platform.processor()
    return torch.backends.mkl.is_available() and "AuthenticAMD" in maker


def product(x: Float[Tensor, "n d"], W: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """x W^T of float32 on a CPU, without a gradient."""
    if not numpy_is_faster():
        return x @ W.T
    out = torch.empty(len(x), len(W))
    np.dot(x.numpy(), W.numpy().T, out=out.numpy())
    return out


class _Linear(nn.Linear):
    """An nn.Linear without a bias."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            return super().forward(x)
        return product(x.detach().reshape(-1, x.shape[-1]), self.weight.detach()).view(*x.shape[:-1], -1)


def speed_up_(module: nn.Module) -> None:
    """Where numpy is faster: its float32 layers on the CPU take that, if they have no bias."""
    for layer in module.modules() if numpy_is_faster() else ():
        if type(layer) is nn.Linear and layer.bias is None and layer.weight.dtype == torch.float32 and layer.weight.is_cpu:
            layer.__class__ = _Linear
