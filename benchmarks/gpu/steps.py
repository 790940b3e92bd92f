"""Training steps of the architectures: tokens/s, peak memory, share of the counted floor.

Each begins at its target L0, as after calibration; `cold` ones as initialised, with about half of all latents active, which
takes dense products; the last ones with an option that is off by default. `listed`: entries on the list over those that are
active; empty where the step is dense. The peak includes weights, moments and four batches.
"""
from __future__ import annotations

import statistics
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from benchmarks.gpu import floor, timing
from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import DEVICES, ROOT
from benchmarks.step import batches, ours
from saesweep.arch.latents import Latents
from saesweep.training.member import Member


def run(section: Section) -> None:
    sizes = section.sizes
    _floors(section)
    data, rates = batches(sizes["d_in"], sizes["batch"], 4, str(section.device)), floor.rates_of(section.device)
    for group in architectures(sizes["first"], sizes["same"]):
        section.each((f"{arch}, width {width:,}", partial(_measure, section, data, rates, arch, width))
                     for width in sizes["widths"] for arch in group)
    section.each((f"{arch} cold, width {width:,}", partial(_measure, section, data, rates, arch, width, cold=True))
                 for width in sizes["cold"]["widths"] for arch in sizes["cold"]["archs"])
    section.each((f"{arch} {option}, width {width:,}", partial(_measure, section, data, rates, arch, width, option=option))
                 for option, of in sizes["options"].items() for width in of["widths"] for arch in of["archs"])


def architectures(first: list[str], same: list[str]) -> list[list[str]]:
    """The first ones, then all others of conf/arch but those whose step is that of another one."""
    return [first, sorted({file.stem for file in (ROOT / "conf/arch").glob("*.yaml")} - {*first, *same})]


def _floors(section: Section) -> None:
    sizes = section.sizes
    shape = {"batch": sizes["batch"], "d_in": sizes["d_in"], "l0": sizes["k"]}
    for name, rates in DEVICES.items():
        for width in sorted(sizes["widths"]):
            ms = floor.milliseconds(rates, **shape, d_sae=width)
            rate = {"tokens/s": 1e3 * sizes["batch"] / ms}
            section.row("counted floor by the data sheets", GPU=name, width=width, ms=ms, **rate)


def _measure(
    section: Section, data: list[Tensor], rates: floor.Rates, arch: str, width: int, cold: bool = False, option: str = ""
) -> None:
    sizes = section.sizes
    with section.device:  # the weights are drawn there
        member, step = ours(arch, data[0], width, sizes["k"], dense=False, cold=cold, option=option)
    feed = cycle(data)
    timing.forget_peak(section.device)
    times = timing.milliseconds(lambda: step(next(feed)), section.device, sizes["rounds"], sizes["seconds"])
    l0, latents = member.sums.means()["l0"], latents_of(member, data[0])
    listed = latents.entries and len(latents.values) / float((latents.values > 0).sum())
    ms, mean = statistics.median(times), member.optimizer["betas"][0] > 0
    least = floor.milliseconds(rates, batch=sizes["batch"], d_in=sizes["d_in"], d_sae=width, l0=l0, mean=mean)
    rest = {"tokens/s": 1e3 * sizes["batch"] / ms, "peak, GB": timing.peak_gigabytes(section.device), "floor, ms": least,
            "floor / step": least / ms}
    kind = f"{arch}{' cold' * cold} {option}".strip()
    section.row(f"d_in {sizes['d_in']:,}, batch {sizes['batch']:,}, target L0 {sizes['k']}", arch=kind,
                width=width, L0=l0, listed=listed, ms=ms, fastest=min(times), slowest=max(times), **rest)


@torch.no_grad()
def latents_of(member: Member, x: Tensor) -> Latents:
    """Of one more step, a list or dense."""
    return member.sae.step(x, x.new_zeros(()), 1.0).latents
