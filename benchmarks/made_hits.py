"""Made-up hits for `benchmarks.collector`, and what a process measures of itself.

Imports numpy alone: peers run in environments of their own.
"""
from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np


class Hits(NamedTuple):
    """The active latents of some tokens, token after token, with ascending latents."""

    starts: np.ndarray  # [rows + 1]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def dense(self, width: int) -> np.ndarray:
        """[rows, width]"""
        f = np.zeros((len(self.starts) - 1, width), np.float32)
        f[self.rows, self.columns] = self.values
        return f


def draw(seed: int, rows: int, width: int, l0: int) -> Hits:
    """At most l0 latents a token, slightly fewer on average: a latent that is drawn twice for a token counts once. The i-th
    most frequent is drawn in proportion to sqrt(i + 1) - sqrt(i), so that frequencies differ widely, as those of SAEs do."""
    random, order = np.random.default_rng(seed), np.random.default_rng(0).permutation(width)
    drawn = order[(random.random((rows, l0)) ** 2 * width).astype(np.int64)]
    entries = np.unique(drawn + width * np.arange(rows)[:, None])
    of_row, columns = entries // width, entries % width
    values = random.lognormal(size=len(entries)).astype(np.float32)
    return Hits(np.searchsorted(of_row, np.arange(rows + 1)), of_row, columns, values)


class Watch:
    """Seconds of wall and CPU by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, stage: str, sign: int = 1) -> Iterator[None]:
        """sign: -1 inside another measurement of the stage for what does not belong to it."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        total = self.stages.setdefault(stage, [0.0, 0.0])
        total[0] += sign * (time.perf_counter() - wall)
        total[1] += sign * (time.process_time() - cpu)


def resident() -> int:
    return _status("VmRSS")


def peak() -> int:
    """The largest resident size since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # so that freed memory is no part of what is resident
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _status(key: str) -> int:
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def serve(run: Callable[..., dict]) -> None:
    """Answers each line of standard input, the keyword arguments of `run`, with a line, its result."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)
