"""Milliseconds of a call: by events on a GPU, whose calls return before their work is done, by the clock on a CPU."""
from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch


def milliseconds(call: Callable[[], object], device: torch.device, rounds: int, seconds: float) -> list[float]:
    """Of each of up to `rounds` calls one after the other, fewer (at least 3) where they take longer than `seconds`.

    Two calls before them, in which kernels are compiled, are not counted.
    """
    call()
    once = max(1e-3, _chain(call, device, 1)[0])
    return _chain(call, device, min(rounds, max(3, int(1e3 * seconds / once))))


def _chain(call: Callable[[], object], device: torch.device, count: int) -> list[float]:
    marks = [_mark(device)]
    for _ in range(count):
        call()
        marks.append(_mark(device))
    if device.type != "cuda":
        return [1e3 * (after - before) for before, after in pairwise(marks)]
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) for before, after in pairwise(marks)]


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def peak_gigabytes(device: torch.device) -> float | None:
    """The largest sum of tensors since `forget_peak`; None on a CPU, where torch does not count."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def free_bytes(device: torch.device) -> float:
    """What an allocation can take; without a limit on a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
