"""Compiles recorded launches for compute capabilities; no GPU is needed: python -m benchmarks.gpu.compiled 80 90 < launches.

Prints, of one capability after the other, a line of JSON for each launch: registers of a thread, bytes that it spills, bytes
of shared memory of a block. It needs a process of its own, without Triton's interpreter.
"""
from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
WARP = 32


def usage(launch: dict[str, Any], capability: int) -> dict[str, int]:
    kernel = getattr(importlib.import_module(launch["module"]), launch["kernel"])
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in launch["aligned"]}
    source = ASTSource(kernel, launch["types"], launch["constants"], attributes)
    compiled = triton.compile(source, GPUTarget("cuda", capability, WARP), {"num_warps": launch["warps"]})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", text)}
    return {"registers": found["REG"], "spilled": found["STACK"], "shared": compiled.metadata.shared}


if __name__ == "__main__":
    launches = json.load(sys.stdin)
    for capability in map(int, sys.argv[1:]):
        for launch in launches:
            print(json.dumps(launch | usage(launch, capability)), flush=True)
