"""The counted floor of a step: no step over a list is faster, whatever its kernels.

    product   2 batch d_in d_sae operations in bf16, which rank the latents
    update    weights and moments of both matrices are read and written once: 24 bytes a parameter, 16 where beta1 is 0
    rows      of each entry its row of W_enc and its row of W_dec, 4 d_in bytes each
    batch     is read, and the residual written

Left out are whatever an implementation can avoid: gradients and scores that are written, casts, and the host.
"""
from __future__ import annotations

import statistics

import torch

from benchmarks.gpu import sizes, timing

Rates = dict[str, float]  # bf16: TFLOP/s; memory: TB/s
PRODUCTS = (("bf16", torch.bfloat16, "highest"), ("tf32", torch.float32, "high"), ("fp32", torch.float32, "highest"))


def milliseconds(rates: Rates, *, batch: int, d_in: int, d_sae: int, l0: float, mean: bool = True) -> float:
    """`mean`: whether Adam has a first moment, beta1 > 0."""
    update = 2 * d_in * d_sae * (24 if mean else 16)
    rows = 2 * batch * l0 * 4 * d_in + 2 * 4 * batch * d_in
    return 1e3 * (2 * batch * d_in * d_sae / (1e12 * rates["bf16"]) + (update + rows) / (1e12 * rates["memory"]))


def rates_of(device: torch.device) -> Rates:
    """Of the data sheet where the GPU is known, else measured."""
    known = sizes.known_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return known or measured(device, **sizes.of_section("environment", device.type == "cpu"))


def measured(device: torch.device, product: list[int], copy: int, rounds: int, seconds: float) -> Rates:
    """TFLOP/s of a product [n, d] x [d, m] in each precision, and TB/s of a copy, bytes read and written both counted."""
    n, d, m = product
    x, w = torch.randn(n, d, device=device), torch.randn(d, m, device=device)
    found, flop = {}, 2 * n * d * m
    before = torch.get_float32_matmul_precision()
    for name, dtype, precision in PRODUCTS:
        torch.set_float32_matmul_precision(precision)
        one, other = x.to(dtype), w.to(dtype)
        found[name] = flop / _median(lambda one=one, other=other: one @ other, device, rounds, seconds) / 1e9
    torch.set_float32_matmul_precision(before)
    one, other = (torch.ones(copy, dtype=torch.uint8, device=device) for _ in range(2))
    return found | {"memory": 2 * copy / _median(lambda: one.copy_(other), device, rounds, seconds) / 1e9}


def _median(call, device: torch.device, rounds: int, seconds: float) -> float:
    return statistics.median(timing.milliseconds(call, device, rounds, seconds))
