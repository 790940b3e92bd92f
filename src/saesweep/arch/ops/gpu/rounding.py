"""Rows in bf16 and their 4-norms, by a pass of their own or within a kernel that has the row."""
import torch
import triton.language as tl
from torch import Tensor

from saesweep.arch.ops.gpu.rows import block, compiled, load_row


@compiled
def store_rounded(x, factor, bits, norms, r, d, lanes):
    """Row x in bf16, and ||factor * x||_4; x is 0 beyond its d numbers."""
    whole = x.to(tl.uint32, bitcast=True)
    half = tl.where(x == x, (whole + 0x7FFF + ((whole >> 16) & 1)) >> 16, 0x7FC0)  # to nearest, ties to even
    tl.store(bits + r * d + lanes, half.to(tl.int16), mask=lanes < d)
    y = x * load_row(factor, 0, d, lanes)
    tl.store(norms + r, tl.sqrt(tl.sqrt(tl.sum(y * y * y * y))))


@compiled
def _round(matrix, factor, bits, norms, d, BLOCK: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    store_rounded(load_row(matrix, r, d, lanes), factor, bits, norms, r, d, lanes)


def rounded(matrix: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix in bf16, and ||factor * row||_4 of each of its rows, in one pass."""
    (count, d), bits = matrix.shape, torch.empty_like(matrix, dtype=torch.int16, memory_format=torch.contiguous_format)
    norms = matrix.new_empty(count)
    _round[(count,)](matrix.contiguous(), factor, bits, norms, d, **block(d))
    return bits.view(torch.bfloat16), norms
