"""The machine, and the rates that it reaches.

A floor is counted with them where the data sheet of the GPU is not known (floor.py).
"""
from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.gpu import floor
from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import ROOT

PACKAGES = ("torch", "triton", "lightning", "transformers", "hydra-core", "datasets", "numba")
NVIDIA = "driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"


def run(section: Section) -> None:
    for key, value in {**_machine(section.device), **_software()}.items():
        section.row("machine", what=key, value=value)
    if section.device.type == "cuda" and not _compiler():
        section.note("there is no C compiler, which Triton needs at run time: install gcc, or set CC")
    section.each([("rates", lambda: [section.row("rates", what=key, value=value)
                                     for key, value in floor.measured(section.device, **section.sizes).items()])])


def _machine(device: torch.device) -> dict[str, str]:
    found = {"CPU": f"{os.cpu_count()} cores, {platform.machine()}", "system": platform.platform()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        capability, numbers = f"{properties.major}.{properties.minor}", ("--format=csv,noheader", f"--query-gpu={NVIDIA}")
        found |= {"GPU": properties.name, "compute capability": capability, NVIDIA: _output("nvidia-smi", *numbers),
                  "multiprocessors": str(properties.multi_processor_count)}
    return found


def _software() -> dict[str, str]:
    return {
        "saesweep": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"), "Python": platform.python_version(),
        "CUDA of torch": str(torch.version.cuda), **{name: _version(name) for name in PACKAGES}, "C compiler": _compiler(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _compiler() -> str:
    """The one that Triton takes."""
    found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return _output(found, "--version").partition("\n")[0] if found else ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
