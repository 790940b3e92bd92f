"""The histograms of a latent as SVG: of its activations, over log2 of the value, and of the logits of its decoder row."""
from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int64, UInt32

from saesweep.study.pages.axes import even_ticks, text

WIDTH, HEIGHT, LEFT, FLOOR = 300, 110, 2, 88
TALLEST = FLOOR - 6
PER_DOUBLING, ZERO = 4, 64  # bin = floor(4 log2 value) + 64


def histogram(counts: UInt32[np.ndarray, " bins"]) -> str:
    """Empty for a latent that never fires."""
    fired = np.flatnonzero(counts)
    if not len(fired):
        return ""
    first, last = int(fired[0]) // PER_DOUBLING * PER_DOUBLING, -(-int(fired[-1] + 1) // PER_DOUBLING) * PER_DOUBLING
    shown = counts[first:last].astype(float)
    ends = range(first, last + 1, PER_DOUBLING)
    every = math.ceil(60 * len(ends[1:]) / (WIDTH - 2 * LEFT))  # 60 units for a label
    ticks = [(end - first, f"{value(end):.2g}") for end in ends[::every]]
    label = (f"Histogram of {int(counts.sum()):,} activations from {value(int(fired[0])):.2g} to "
             f"{value(int(fired[-1]) + 1):.2g}; most in the bin from {value(first + int(shown.argmax())):.2g}")
    return _drawn(shown, ticks, label)


def logit_histogram(counts: Int64[np.ndarray, " bins"], start: float, width: float) -> str:
    """start: lower end of the first bin, of bins of `width`. Empty where all logits are the same. A bar of few words is a unit
    high, to be seen."""
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return ""
    end, largest = start + width * len(counts), int(counts.argmax())
    ticks = [((at - start) / width, label) for at, label in even_ticks(start, end)]
    low, high, most = (f"{at:z.2g}" for at in (start, start + width * (used[-1] + 1), start + width * largest))
    label = (f"Histogram of the logits of {int(counts.sum()):,} words, less their mean, from {low} to {high}; "
             f"most in the bin from {most}")
    return _drawn(np.where(counts > 0, np.maximum(counts, counts.max() / TALLEST), 0.0), ticks, label)


def _drawn(shown: Float[np.ndarray, " bins"], ticks: Iterable[tuple[float, str]], label: str) -> str:
    """ticks: place in bins, and words."""
    step = (WIDTH - 2 * LEFT) / len(shown)
    tops = FLOOR - TALLEST * shown / shown.max()
    bars = "".join(f"M{LEFT + n * step:.1f} {FLOOR}V{top:.1f}h{step:.1f}V{FLOOR}z" for n, top in enumerate(tops) if top < FLOOR)
    labels = "".join(_tick(LEFT + at * step, words) for at, words in ticks)
    return (f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
            f'<path class="bars" d="{bars}"/><path class="axis" d="M{LEFT} {FLOOR}H{WIDTH - LEFT}"/>{labels}</svg>')


def value(bin_: int) -> float:
    """Its lower end."""
    return 2.0 ** ((bin_ - ZERO) / PER_DOUBLING)


def _tick(x: float, words: str) -> str:
    return text(x, FLOOR + 15, words, "start" if x < 20 else "end" if x > WIDTH - 20 else "middle")
