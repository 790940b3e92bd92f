"""The operations over a list of entries that take most of a step's time, in three modules that compute the same.

    plain   PyTorch alone: the definition, for fp64 and for other devices
    cpu     fp32 on a CPU: numba, candidates by an int8, int16 or fp32 product
    gpu     fp32 on CUDA: Triton, candidates by a bf16 product

Each module has

    choose(u, W_enc_T, b_enc, above, k, sure, rounded_W, room)
                                                         the entries of pi = u W_enc + b_enc above their bound, or else the
                                                         k largest of each row: (starts, rows, columns, values), or None
                                                         if there are so many that dense products are faster; an entry
                                                         whose value is 0 is listed, but not kept; sure: none is missing;
                                                         rounded_W: of an SAE that is trained, what `gpu` keeps of W_enc
                                                         (rounded.py); room: for its list, so that the host does not
                                                         wait for its length (room.py)
    sort_by_column(columns, d_sae)                       (order, starts) that sort the list by column
    reconstruct(starts, rows, columns, f, W_dec, b_dec, x)
                                                         the residual f W_dec + b_dec - x, its rows' squared norms, and
                                                         residual[row] . W_dec[column]
    sum_columns(order, starts, rows, weights, matrix)    for every column, the sum of weight * matrix[row]
    fired(columns, values, d_sae)                        which columns have a value above 0
    grad_and_norms(grad, weight, unit)                   the gradient as a tensor, and its rows' squared norms; `unit`: the
                                                         weight's rows have norm one, and only the tangent part counts
    adam(weight, grad, mean, square, numbers, unit, norms, rounded_W)
                                                         one Adam step in place (training/optimizer.py); with beta1 = 0 the
                                                         mean is the gradient, and `mean` is not written; norms: return the
                                                         squared norms that `grad_and_norms` would, of any cut into rows;
                                                         rounded_W: of W_enc, which is written with it

A gradient is a tensor, or a `Sums` if its rows are to be formed one at a time without holding all of them.

A list is in row-major order; entry e belongs to row r where starts[r] <= e < starts[r + 1]. Entries from starts[-1] on belong
to no row, and have the value 0.
"""
from types import ModuleType

import torch
from torch import Tensor


def ops_for(x: Tensor) -> ModuleType:
    """The module for tensors of this dtype and device."""
    from saesweep.arch.ops import plain

    if x.dtype != torch.float32:
        return plain
    if x.device.type == "cpu":
        from saesweep.arch.ops import cpu

        return cpu
    if x.device.type == "cuda":
        from saesweep.arch.ops import gpu

        return gpu
    return plain
