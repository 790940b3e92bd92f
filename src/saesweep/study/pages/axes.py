"""Axes, marks and scales of the study's figures as SVG."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from saesweep.report.style import Style

WIDTH, HEIGHT = 420, 270
CORNERS = {"s": "-1-1H1V1H-1Z", "^": "0-1.2L1.2 1H-1.2Z", "D": "0-1.35L1.35 0L0 1.35L-1.35 0Z", "v": "0 1.2L1.2-1H-1.2Z",
           "<": "-1.2 0L1 1.2V-1.2Z", ">": "1.2 0L-1 1.2V-1.2Z", "o": "-1.1 0A1.1 1.1 0 1 0 1.1 0A1.1 1.1 0 1 0-1.1 0Z"}
Scale = Callable[[float], float]
Ticks = Sequence[tuple[float, str]]  # value and label
Points = Iterable[tuple[float, float]]  # in pixels


class Box(NamedTuple):
    left: float = 46
    right: float = WIDTH - 20
    top: float = 24
    floor: float = HEIGHT - 42


BOX = Box()


def scale(low: float, high: float, start: float, end: float, log: bool = False) -> Scale:
    """From values to pixels."""
    f: Scale = math.log if log else float
    return lambda value: start + (end - start) * (f(value) - f(low)) / (f(high) - f(low))


def span(values: Iterable[float]) -> tuple[float, float]:
    """The ends of an axis, with a margin around the values."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def even_ticks(low: float, high: float, count: int = 5) -> Ticks:
    rough = (high - low) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = min((m * unit for m in (1, 2, 5, 10)), key=lambda one: abs(one - rough))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:z.{decimals}f}") for k in range(first, last + 1)]


def frame(x: Scale, y: Scale, xs: Ticks, ys: Ticks, name_x: str, name_y: str, box: Box = BOX) -> str:
    """Grid, axes and labels; read by eyes alone, as the table has the numbers."""
    grid = "".join(f"M{x(at):.1f} {box.top}V{box.floor}" for at, _ in xs)
    grid += "".join(f"M{box.left} {y(at):.1f}H{box.right}" for at, _ in ys)
    words = [text(x(at), box.floor + 16, label, "middle") for at, label in xs]
    words += [text(box.left - 6, y(at) + 4, label, "end") for at, label in ys]
    words += [text((box.left + box.right) / 2, box.floor + 35, name_x, "middle"), text(2, box.top - 9, name_y, "start")]
    return (f'<g aria-hidden="true"><path class="grid" d="{grid}"/><path class="axis" d="M{box.left} {box.top}V{box.floor}'
            f'H{box.right}"/>{"".join(words)}</g>')


def text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def path(points: Points) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def mark(marker: str, x: float, y: float, size: float = 4.4) -> str:
    return f'<path class="mark" d="M{CORNERS[marker]}" transform="translate({x:.1f} {y:.1f}) scale({size})"/>'


def svg(label: str, *content: str) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(label)}">{"".join(content)}</svg>')


def colours(styles: Mapping[str, Style]) -> str:
    """CSS: the colour of each architecture as --tone of the class a0, a1 ..; lighter on a dark page."""
    light = "".join(f".a{n} {{ --tone: {style.colour} }} " for n, style in enumerate(styles.values()))
    dark = "".join(f".a{n} {{ --tone: color-mix(in oklab, {style.colour} 70%, white) }} "
                   for n, style in enumerate(styles.values()))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark}}}\n"


def legend(styles: Mapping[str, Style], lines: Mapping[str, str]) -> str:
    """lines: by name the dash pattern of a control."""
    swatch = '<svg width="30" height="14" aria-hidden="true">{}</svg>'
    items = [f'<li class="a{n}">{swatch.format(mark(style.marker, 15, 7))}{escape(arch)}</li>'
             for n, (arch, style) in enumerate(styles.items())]
    dashed = '<path class="control" stroke-dasharray="{}" d="M0 7H30"/>'
    items += [f"<li>{swatch.format(dashed.format(dash))}{escape(name)} control</li>" for name, dash in lines.items()]
    return f'<ul class="legend" aria-label="Marks and lines of the figures">{"".join(items)}</ul>'
