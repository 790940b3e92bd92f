"""Registers, spilled bytes and shared memory of the kernels, compiled for several GPUs without one.

`registers, spilled, shared`: registers of a thread, bytes that a thread spills, bytes of shared memory of a block.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import CAPABILITIES, ROOT


def run(section: Section) -> None:
    launches = recorded(section.sizes["d_in"])
    used = usage(launches, CAPABILITIES)
    for position, launch in enumerate(launches):
        found = {f"sm_{name}": "{registers}, {spilled}, {shared:,}".format(**of[position]) for name, of in used.items()}
        section.row("registers, spilled, shared", kernel=launch["kernel"], d_in=launch["d_in"], warps=launch["warps"], **found)


def recorded(d_in: Sequence[int]) -> list[dict[str, Any]]:
    """The launches of all operations at these d_in (launches.py)."""
    return json.loads(_output("launches", map(str, d_in), "", {"TRITON_INTERPRET": "1"}))


def usage(launches: Sequence[dict[str, Any]], capabilities: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """By capability each launch with its registers, spilled and shared bytes (compiled.py)."""
    names = list(capabilities)
    lines = iter(_output("compiled", map(str, names), json.dumps(launches), {}).splitlines())
    return {name: [json.loads(next(lines)) for _ in launches] for name in names}


def _output(module: str, words: Any, given: str, more: dict[str, str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | more
    command = [sys.executable, "-m", f"benchmarks.gpu.{module}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, input=given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    return done.stdout
