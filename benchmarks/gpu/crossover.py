"""Dense steps against steps over a list at several L0, and from where on the list is faster.

`ratio` is latents per active latent, d_sae / L0. A case's crossover is the ratio at which both take the same time,
interpolated between two L0 on logarithmic scales; the suggested number is the geometric mean of the cases.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import cycle, pairwise

from torch import Tensor

from benchmarks.gpu import lists, timing
from benchmarks.gpu.section import Section
from benchmarks.gpu.steps import latents_of
from benchmarks.step import batches, ours

Point = tuple[float, float]  # ratio; milliseconds over a list / dense


def run(section: Section) -> None:
    sizes = section.sizes
    data, found = batches(sizes["d_in"], sizes["batch"], 4, str(section.device)), list[float]()
    section.each((f"{arch}, width {width:,}", partial(_case, section, data, arch, width, found))
                 for arch in sizes["archs"] for width in sizes["widths"])
    if found:
        section.note(f"suggested: dense below {geometric_mean(found):.0f} latents per active latent on this device ("
                     f"{len(found)} cases, from {min(found):.0f} to {max(found):.0f})")
    else:
        section.note("no case has a crossover in this range")


def _case(section: Section, data: list[Tensor], arch: str, width: int, found: list[float]) -> None:
    points, dense = list[Point](), _milliseconds(section, data, arch, width, section.sizes["k"][0], dense=True)
    for k in filter(lambda k: k < width / 2, section.sizes["k"]):
        if section.time_left() <= 0:
            section.note(f"no time was left for {arch}, width {width:,}, L0 {k}")
            break
        over_list = _milliseconds(section, data, arch, width, k, dense=False)
        points.append((width / k, over_list / dense))
        faster = "list" if over_list < dense else "dense"
        section.row(f"d_in {section.sizes['d_in']:,}, batch {section.sizes['batch']:,}", arch=arch, width=width, L0=k,
                    ratio=width / k, **{"list, ms": over_list, "dense, ms": dense}, faster=faster)
    if (crossing := crossover(points)) is not None:
        section.row("crossover", arch=arch, width=width, ratio=crossing)
        found.append(crossing)


def _milliseconds(section: Section, data: list[Tensor], arch: str, width: int, k: int, dense: bool) -> float:
    with section.device:
        member, step = ours(arch, data[0], width, k, dense)
    feed = cycle(data)
    with lists.of_any_length():
        times = timing.milliseconds(lambda: step(next(feed)), section.device, section.sizes["rounds"], section.sizes["seconds"])
        assert dense or latents_of(member, data[0]).entries is not None, "the step is dense"
    return statistics.median(times)


def crossover(points: Sequence[Point]) -> float | None:
    """The largest ratio at which list and dense take the same time; None where one of them is always faster."""
    points = sorted(points)
    for (low, slower), (high, faster) in reversed(list(pairwise(points))):
        if faster < 1 <= slower:
            share = math.log(slower) / (math.log(slower) - math.log(faster))
            return low * (high / low) ** share
    return None


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))
