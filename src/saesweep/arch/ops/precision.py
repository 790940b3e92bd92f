"""The precision of fp32 products on CUDA, said here alone; on a CPU they are fp32.

    selection       bf16 inputs, fp32 sums      ranks latents only: what it finds is computed again in fp32 (gpu/candidates.py)
    over a list     fp32                        Triton's kernels
    dense           TF32 inputs, fp32 sums      dense steps and AuxK; 10 bits of mantissa
    evaluation      fp32
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch

DENSE = "high"  # TF32, as torch.set_float32_matmul_precision calls it; "highest": fp32


@contextmanager
def training_products(device: torch.device) -> Iterator[None]:
    """Within it, products of a training step on this device have the precision said above."""
    if device.type != "cuda":
        yield
        return
    matmul, before = torch.backends.cuda.matmul, torch.get_float32_matmul_precision()
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision(DENSE)
    matmul.allow_bf16_reduced_precision_reduction = False  # else parts of a long sum may be added in bf16
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction = reduced
