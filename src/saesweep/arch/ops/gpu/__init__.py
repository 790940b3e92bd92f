"""fp32 on CUDA: Triton's kernels, a program per token or per latent.

    candidates   choose: entries chosen in two stages
    sums         products and sums over the entries of a list
    update       norms of gradients, and Adam
    rounding     rows in bf16
    rows         what the kernels share

TRITON_INTERPRET=1 runs the kernels without a GPU, on CPU tensors: that is how they are tested.
"""
from saesweep.arch.ops.gpu.candidates import choose
from saesweep.arch.ops.gpu.sums import reconstruct, sum_columns
from saesweep.arch.ops.gpu.update import adam, grad_and_norms
from saesweep.arch.ops.plain import fired, sort_by_column

__all__ = ["adam", "choose", "fired", "grad_and_norms", "reconstruct", "sort_by_column", "sum_columns"]
