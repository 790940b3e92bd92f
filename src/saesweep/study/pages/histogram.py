"""The histogram of a latent's activations as SVG: counts over log2 of the value."""
from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt32

WIDTH, HEIGHT, LEFT, FLOOR = 300, 110, 2, 88
PER_DOUBLING, ZERO = 4, 64  # bin = floor(4 log2 value) + 64


def histogram(counts: UInt32[np.ndarray, " bins"]) -> str:
    """Empty for a latent that never fires."""
    fired = np.flatnonzero(counts)
    if not len(fired):
        return ""
    first, last = int(fired[0]) // PER_DOUBLING * PER_DOUBLING, -(-int(fired[-1] + 1) // PER_DOUBLING) * PER_DOUBLING
    shown = counts[first:last].astype(float)
    step = (WIDTH - 2 * LEFT) / len(shown)
    tops = FLOOR - (FLOOR - 6) * shown / shown.max()
    bars = "".join(f"M{LEFT + n * step:.1f} {FLOOR}V{top:.1f}h{step:.1f}V{FLOOR}z" for n, top in enumerate(tops) if top < FLOOR)
    ends = range(first, last + 1, PER_DOUBLING)
    every = math.ceil(60 / (step * PER_DOUBLING))  # 60 units for a label
    ticks = "".join(_tick(LEFT + (end - first) * step, end) for end in ends[::every])
    label = (f"Histogram of {int(counts.sum()):,} activations from {value(int(fired[0])):.2g} to "
             f"{value(int(fired[-1]) + 1):.2g}; most in the bin from {value(first + int(shown.argmax())):.2g}")
    return (f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
            f'<path class="bars" d="{bars}"/><path class="axis" d="M{LEFT} {FLOOR}H{WIDTH - LEFT}"/>{ticks}</svg>')


def value(bin_: int) -> float:
    """Its lower end."""
    return 2.0 ** ((bin_ - ZERO) / PER_DOUBLING)


def _tick(x: float, bin_: int) -> str:
    anchor = "start" if x < 20 else "end" if x > WIDTH - 20 else "middle"
    return f'<text x="{x:.1f}" y="{FLOOR + 15}" text-anchor="{anchor}">{value(bin_):.2g}</text>'
