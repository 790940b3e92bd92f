"""Compiles every Triton kernel for the given compute capabilities; no GPU is needed: python tests/compile_kernels.py 80 90.

Prints kernel, d_in and the bytes that a thread spills, one kernel per line. It needs a process of its own, without Triton's
interpreter.
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from saesweep.arch.ops.gpu import candidates, sums, update
from saesweep.arch.ops.gpu.rows import block

INT64, HALVES = {"starts", "columns", "order", "rows", "counts", "within"}, {"rough": "*bf16", "bits": "*i16"}
SCALARS = {"d": "i32", "m": "i32", **dict.fromkeys(("step_size", "beta1", "beta2", "unbias", "eps"), "fp32")}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def spilled(kernel: triton.JITFunction, target: GPUTarget, d: int) -> int:
    meta = {"UNIT": True, "MEAN": True, **block(d)}
    warps = meta.pop("num_warps")
    if "m" in kernel.arg_names:
        meta["BLOCK"], warps = candidates.SCAN, 4
    constants = {name: meta[name] for name in kernel.arg_names if name in meta}
    pointers = {name: "*i64" if name in INT64 else HALVES.get(name, "*fp32") for name in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else SCALARS.get(name, pointers[name]) for name in kernel.arg_names}
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=target, options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1])


if __name__ == "__main__":
    for module in (candidates, sums, update):
        for name in dict.fromkeys(re.findall(r"(_\w+)\[\(", Path(module.__file__).read_text())):
            for capability in map(int, sys.argv[1:]):
                for d in (640, 2304, 4096):
                    print(name, d, spilled(getattr(module, name), GPUTarget("cuda", capability, 32), d))
