"""The kernels that the operations of a GPU launch, with their arguments, recorded in Triton's interpreter without a GPU.

python -m benchmarks.gpu.launches 640 2304, with TRITON_INTERPRET=1: JSON, a list of launches. Rows of unit norm, a first
moment, norms and a copy in bf16 take the most registers, and are those recorded.
"""
from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton.runtime.interpreter import GridExecutor

from benchmarks.gpu import lists
from saesweep.arch.ops import gpu, plain
from saesweep.arch.ops.entries import Adam, Sums
from saesweep.arch.ops.rounded import Rounded

BATCH, D_SAE, K = 8, 48, 32  # 256 entries: enough for kernels of long lists
NUMBERS = Adam(clip=0.5, step_size=0.01, beta1=0.9, beta2=0.999, unbias=2.0, eps=1e-8)
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64", torch.int32: "*i32",
         torch.int16: "*i16", torch.uint8: "*u8", torch.bool: "*i1", torch.float64: "*fp64"}
ALIGNED = 16  # bytes of a pointer, or a factor of a number: the loads are then wide


def record(d_in: int) -> list[dict[str, Any]]:
    """Every launch of each operation, once."""
    found: dict[str, dict[str, Any]] = {}
    run = GridExecutor.__call__

    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        launch = described(self, args, kwargs) | {"d_in": d_in}
        found[json.dumps(launch)] = launch
        run(self, *args, **kwargs)

    GridExecutor.__call__ = recorded
    try:
        with lists.of_any_length():
            call_all(d_in)
    finally:
        GridExecutor.__call__ = run
    return list(found.values())


def call_all(d_in: int) -> None:
    """Every operation that launches a kernel, on small tensors."""
    u, W = torch.randn(BATCH, d_in), torch.nn.functional.normalize(torch.randn(D_SAE, d_in))
    b_enc, b_dec, mean, square = torch.zeros(D_SAE), torch.zeros(d_in), torch.zeros_like(W), torch.zeros_like(W)
    gpu.choose(u, W, b_enc, torch.full_like(b_enc, 1.5), 0)
    chosen = gpu.choose(u, W, b_enc, None, K)
    assert chosen is not None
    starts, rows, columns, values = chosen
    residual, _, _ = gpu.reconstruct(starts, rows, columns, values, W, b_dec, u)
    sums = Sums(*plain.sort_by_column(columns, D_SAE), rows, values, residual)
    for grad in (sums, gpu.sum_columns(*sums)):
        gpu.grad_and_norms(grad, W, True)
        gpu.adam(W, grad, mean, square, NUMBERS, True, True, Rounded(torch.ones(d_in)))


def described(executor: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Kernel, types, constants and alignment of a launch, as Triton's compiler wants them."""
    given = dict(zip(executor.arg_names, args, strict=False)) | {n: kwargs[n] for n in executor.arg_names if n in kwargs}
    constants = {name: value for name, value in given.items() if name in executor.constexprs or value is None}
    aligned = [name for name, value in given.items() if name not in constants and _aligned(value)]
    return {"module": executor.fn.__module__, "kernel": executor.fn.__name__, "warps": kwargs.get("num_warps", 4),
            "types": {name: "constexpr" if name in constants else _type(given[name]) for name in executor.arg_names},
            "constants": constants, "aligned": aligned}


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def _aligned(value: Any) -> bool:
    number = value.data_ptr() if isinstance(value, torch.Tensor) else value
    return isinstance(number, int) and number % ALIGNED == 0


if __name__ == "__main__":
    print(json.dumps([launch for d_in in map(int, sys.argv[1:]) for launch in record(d_in)]))
