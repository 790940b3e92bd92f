"""Reading rows of a matrix, a thread eight numbers of each; four rows at a time, so that several loads are in flight."""
import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

TOGETHER = tl.constexpr(4)  # rows per gather


def compiled(function: Callable) -> Any:  # indexed by its grid
    return triton.jit(inspect.unwrap(function))  # without a runtime type checker's wrapper


def block(d: int) -> dict[str, int]:
    """The size of the block that holds a row of d numbers, and the warps that share it."""
    size = triton.next_power_of_2(d)
    return {"BLOCK": size, "num_warps": min(max(size // 256, 1), 16)}


@compiled
def load_row(pointer, index, d, lanes):
    return tl.load(pointer + index * d + lanes, mask=lanes < d, other=0.0)


@compiled
def load_rows(pointer, index, where, d, lanes):
    return tl.load(pointer + index[:, None] * d + lanes[None, :], mask=where[:, None] & (lanes < d)[None, :], other=0.0)
