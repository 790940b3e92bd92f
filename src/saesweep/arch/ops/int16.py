"""A product of int16 matrices by AVX2, for processors without a fast int8 product: 1.3 to 1.9 times as fast as fp32 there.

    score [n, m] = q_u [n, d] q_w [m, d]^T in int32        exact while d * largest^2 < 2^31

One instruction multiplies 8 pairs of int16 and adds up each pair. A tile of ROWS x COLUMNS stays in 10 registers while it
is summed over d. Both sides are laid out in panels of ROWS or COLUMNS rows, [panels, d / 2, rows], with a pair in an int32.
"""
import math

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from saesweep.arch.ops.kernels import compiled

ROWS, COLUMNS = 5, 16
BLOCK = 19  # tiles whose left sides stay in a core's cache
INT, INTS, SHORTS = ir.IntType(32), ir.VectorType(ir.IntType(32), 8), ir.VectorType(ir.IntType(16), 16)


def fits(n: int, m: int, d: int) -> bool:
    return n >= ROWS and m % COLUMNS == 0 and d % 2 == 0


def largest(d: int) -> int:
    """The largest magnitude of an int16 for which no sum of d products overflows."""
    return math.isqrt((2**31 - 1) // d)


def product(q_u: np.ndarray, q_w: np.ndarray, score: np.ndarray) -> None:
    (n, d), m = q_u.shape, len(q_w)
    assert fits(n, m, d) and q_u.dtype == q_w.dtype == np.int16 and score.dtype == np.int32
    left, right = np.empty((math.ceil(n / ROWS), d // 2, ROWS), np.int32), np.empty((m // COLUMNS, d // 2, COLUMNS), np.int32)
    with numba.parallel_chunksize(1):
        _lay_out(q_u.view(np.int32), left)
        _lay_out(q_w.view(np.int32), right)
        _multiply(left, right, score)


@compiled
def _lay_out(q, panels):
    count, pairs, rows = panels.shape
    for p in prange(count):
        first = min(p * rows, len(q) - rows)  # the last panel may overlap the one before it
        for i in range(rows):
            for k in range(pairs):
                panels[p, k, i] = q[first + i, k]


@compiled
def _multiply(left, right, score):
    (tiles, pairs, rows), columns, (n, m) = left.shape, right.shape[2], score.shape
    a, b, out = left.ctypes.data, right.ctypes.data, score.ctypes.data
    for block in prange((tiles + BLOCK - 1) // BLOCK):
        for panel in range(len(right)):
            for tile in range(block * BLOCK, min(tiles, (block + 1) * BLOCK)):
                at = min(tile * rows, n - rows) * m + panel * columns
                _tile(a + 4 * tile * rows * pairs, b + 4 * panel * columns * pairs, out + 4 * at, 4 * m, pairs)  # pyright: ignore[reportCallIssue]


@intrinsic
def _tile(context, left, right, out, out_stride, pairs):
    """ROWS x COLUMNS sums over all pairs; the arguments are addresses, and the distance of rows in bytes."""

    def generate(context, builder, signature, arguments):
        left, right, out, out_stride, pairs = arguments

        def moved(address, steps, stride):
            return builder.add(address, builder.mul(stride, steps if isinstance(steps, ir.Value) else stride.type(steps)))

        def loaded(address, kind, align):
            value = builder.load(builder.inttoptr(address, kind.as_pointer()))
            value.align = align
            return value

        module = builder.module
        multiplied = module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(INTS, [SHORTS, SHORTS]))
        sums = [[cgutils.alloca_once(builder, INTS) for _ in range(2)] for _ in range(ROWS)]
        for place in (place for row in sums for place in row):
            builder.store(INTS([0] * 8), place)
        with cgutils.for_range(builder, pairs) as loop:
            above, at = (moved(side, loop.index, side.type(4 * size)) for side, size in ((left, ROWS), (right, COLUMNS)))
            halves = [loaded(moved(at, half, at.type(32)), SHORTS, 2) for half in range(2)]
            for row, places in enumerate(sums):
                pair = loaded(moved(above, row, above.type(4)), INT, 2)
                alone = builder.insert_element(INTS(ir.Undefined), pair, INT(0))
                everywhere = builder.bitcast(builder.shuffle_vector(alone, INTS(ir.Undefined), INTS([0] * 8)), SHORTS)
                for half, place in zip(halves, places, strict=True):
                    builder.store(builder.add(builder.load(place), builder.call(multiplied, [everywhere, half])), place)
        for row, places in enumerate(sums):
            for half, place in enumerate(places):
                address = moved(moved(out, row, out_stride), half, out.type(32))
                builder.store(builder.load(place), builder.inttoptr(address, INTS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate
