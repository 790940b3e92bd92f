"""Where the time of one step goes: its kernels on a GPU, its operations on a CPU."""
from __future__ import annotations

from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import timing
from benchmarks.gpu.section import Section
from benchmarks.step import batches, ours

WARM_UP = 3
NAME = 90  # characters of a kernel's name


def run(section: Section) -> None:
    data = batches(section.sizes["d_in"], section.sizes["batch"], 1, str(section.device))[0]
    section.each((f"{arch}, width {width:,}", partial(_profile, section, data, arch, width))
                 for arch, width in section.sizes["cases"])


def _profile(section: Section, x: torch.Tensor, arch: str, width: int) -> None:
    on_gpu = section.device.type == "cuda"
    with section.device:
        _, step = ours(arch, x, width, section.sizes["k"], dense=False)
    whole = timing.milliseconds(lambda: step(x), section.device, WARM_UP, 1.0)[-1]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        step(x)
        if on_gpu:
            torch.cuda.synchronize()
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    parts = [(event.key, event.count, (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3)
             for event in found.key_averages() if event.device_type == wanted]
    total, calls = sum(ms for *_, ms in parts), sum(count for _, count, _ in parts)
    table = f"{arch}, width {width:,}"
    section.row(table, name="a step, without the profiler", calls=1, ms=whole)
    section.row(table, name="all below", calls=calls, ms=total, share=1.0)
    for name, count, ms in sorted(parts, key=lambda part: -part[2])[: section.sizes["rows"]]:
        section.row(table, name=name[:NAME], calls=count, ms=ms, share=ms / total)
