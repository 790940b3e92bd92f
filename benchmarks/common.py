"""Timings of several contestants in one process, and the machine's peak rates."""
from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date

import torch

from saesweep.runtime.console import ProgressLine
from saesweep.runtime.memory import keep_freed_memory

Times = dict[str, list[float]]
progress = ProgressLine()


def round_robin(contestants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> Times:
    """Seconds per call. Every round calls each contestant once, so that changes of the machine's speed affect all alike."""
    for name, call in contestants.items():
        progress(f"warming up {name}")
        for _ in range(warm_up):
            call()
        synchronize()
    times: Times = {name: [] for name in contestants}
    for number in range(rounds):
        for name, call in contestants.items():
            progress(f"round {number + 1} of {rounds}: {name}")
            start = time.perf_counter()
            call()
            synchronize()
            times[name].append(time.perf_counter() - start)
    return times


def synchronize() -> None:
    """Waits for the GPU, whose calls return before their work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(times: Times, name: str) -> float:
    return statistics.median(times[name])


def rates(times: Times, tokens: int) -> list[str]:
    """A row of a Markdown table per contestant: milliseconds (smallest, largest) and tokens/s."""
    width = max(map(len, times))
    return [
        f"| {name.ljust(width)} | {1e3 * median(times, name):8.1f} ({1e3 * min(all_):.0f}, {1e3 * max(all_):.0f}) "
        f"| {tokens / median(times, name):9,.0f} |"
        for name, all_ in times.items()
    ]


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    supported = {"AMX": torch.cpu._is_amx_tile_supported(), "VNNI": torch.cpu._is_vnni_supported()}
    has = [name for name in supported if supported[name]]
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return (
        f"{date.today()}, {gpu}{model or platform.processor()}, {torch.get_num_threads()} threads, "
        f"{' and '.join(has) or 'neither AMX nor VNNI'}, torch {torch.__version__}"
    )


def _lines(file: str) -> list[str]:
    try:
        with open(file) as lines:
            return lines.read().splitlines()
    except OSError:
        return []


def peak(batch: int, d_in: int, d_sae: int, device: str = "cpu") -> dict[str, float]:
    """FLOP/s of the encoder's product [batch, d_in] x [d_in, d_sae], by precision: the best of 5 rounds."""
    x, w = torch.randn(batch, d_in, device=device), torch.randn(d_sae, d_in, device=device)
    q_x, q_w = (torch.randint(-127, 127, t.shape, dtype=torch.int8, device=device) for t in (x, w))
    half_x, half_w = x.bfloat16(), w.bfloat16()
    calls = {
        "fp32": lambda: x @ w.T,
        "bf16": lambda: half_x @ half_w.T,
        "int8": lambda: torch._int_mm(q_x, q_w.T),
    }
    times = round_robin(calls, rounds=5)
    return {name: 2 * batch * d_in * d_sae / min(seconds) for name, seconds in times.items()}


def prepare() -> None:
    """Gives all contestants saesweep's allocator settings, so that page faults do not enter the comparison."""
    keep_freed_memory()
