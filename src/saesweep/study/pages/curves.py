"""A score against L0: a curve per architecture with its intervals, and the controls; with a table of the same numbers."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import pandas as pd

from saesweep.report.style import LABELS, Style, l0_limits, l0_ticks
from saesweep.storage.curves import split
from saesweep.study.comparison.sentences import MEANS
from saesweep.study.comparison.sentences import number as estimate
from saesweep.study.pages.axes import BOX, Scale, even_ticks, frame, mark, path, scale, span, svg
from saesweep.study.pages.facts import number
from saesweep.study.pages.template import link, row, table

DASHES = {"random": "5 3", "residual": "2 3", "pca": "9 3 2 3"}
Block = Mapping[str, Any]  # a score and a mean at one hook point, of study.json
Links = Mapping[tuple[str, float], str]  # by architecture and target L0 the index of the SAE's latents


class Control(NamedTuple):
    """At the target L0 of one SAE."""

    curve: str  # of the SAE that it is listed with
    name: str
    sparsity: float
    value: float
    low: float  # NaN without an interval
    high: float


def controls(summary: pd.DataFrame, score: str, mean: str) -> list[Control]:
    """summary: of one hook point. An interval is known of the uniform mean alone."""
    rows = summary.loc[summary["control"].notna() & (summary["score"] == score)].dropna(subset=[mean, "sparsity"])
    return [Control(of["arch"], of["control"], float(of["sparsity"]), float(of[mean]), *(
        float(of[end]) if mean == "uniform" else math.nan for end in ("low", "high"))) for of in rows.to_dict("records")]


def title(block: Block) -> str:
    return f"{block['words']}, {MEANS[block['mean']]}" if block["per_feature"] else str(block["words"])


def figure(block: Block, beside: Sequence[Control], styles: Mapping[str, Style], links: Links) -> str:
    points = [(curve["arch"], point) for curve in block["curves"] for point in curve["points"]]
    l0 = pd.Series([point["l0"] for _, point in points] + [one.sparsity for one in beside])
    ends = [value for _, point in points for value in (point["value"], point["low"], point["high"]) if value is not None]
    low, high = l0_limits(l0)
    bottom, top = span([*ends, *(one.value for one in beside)])
    x, y = scale(low, high, BOX.left, BOX.right, log=True), scale(bottom, top, BOX.floor, BOX.top)
    name = title(block)
    ticks = [(tick, f"{tick:g}") for tick in l0_ticks(low, high)]
    drawn = svg(
        f"{name} against L0, with 95% intervals; the numbers are in the table below",
        frame(x, y, ticks, even_ticks(bottom, top), LABELS["l0"], name),
        "".join(_control(kind, [one for one in beside if one.name == kind], x, y) for kind in _kinds(beside)),
        *(_curve(curve, list(styles).index(curve["arch"]), styles, links, x, y) for curve in block["curves"]),
    )
    return f"<figure>{drawn}<details><summary>Numbers</summary>{_table(block, beside, links)}</details></figure>"


def _kinds(beside: Iterable[Control]) -> list[str]:
    found = {one.name for one in beside}
    return [*(name for name in DASHES if name in found), *sorted(found - DASHES.keys())]


def _control(kind: str, rows: Sequence[Control], x: Scale, y: Scale) -> str:
    """A dashed line through its values by L0, with the band of its intervals; of one value a short line."""
    means = {sparsity: [one for one in rows if one.sparsity == sparsity] for sparsity in sorted({one.sparsity for one in rows})}
    line = [(x(at), y(sum(one.value for one in some) / len(some))) for at, some in means.items()]
    known = [(at, some[0]) for at, some in means.items() if len(some) == 1 and some[0].low == some[0].low]
    sides = [(x(at), y(one.low)) for at, one in known] + [(x(at), y(one.high)) for at, one in reversed(known)]
    band = f'<path class="control-band" d="{path(sides)}Z"/>' if len(known) > 1 else ""
    if len(line) == 1:
        line = [(line[0][0] - 14, line[0][1]), (line[0][0] + 14, line[0][1])]
    dash = DASHES.get(kind, "1 2")
    return f'<g aria-hidden="true">{band}<path class="control" stroke-dasharray="{dash}" d="{path(line)}"/></g>'


def _curve(
    curve: Mapping[str, Any], number_: int, styles: Mapping[str, Style], links: Links, x: Scale, y: Scale
) -> str:
    points = curve["points"]
    known = [point for point in points if point["low"] is not None]
    sides = [(x(p["l0"]), y(p["low"])) for p in known] + [(x(p["l0"]), y(p["high"])) for p in reversed(known)]
    band = f'<path class="band" d="{path(sides)}Z"/>' if len(known) > 1 else ""
    bars = "".join(f"M{x(p['l0']):.1f} {y(p['low']):.1f}V{y(p['high']):.1f}" for p in known)
    line = path((x(point["l0"]), y(point["value"])) for point in points)
    marker = styles[curve["arch"]].marker
    marks = "".join(_point(curve["arch"], point, marker, links, x, y) for point in points)
    return (f'<g class="a{number_}">{band}<path class="bars" d="{bars}"/><path class="line" d="{line}"/>{marks}</g>'
            if bars else f'<g class="a{number_}"><path class="line" d="{line}"/>{marks}</g>')


def _point(
    arch: str, point: Mapping[str, Any], marker: str, links: Links, x: Scale, y: Scale
) -> str:
    """A link to the latents of its SAE, where it is one SAE's."""
    words = f"{arch} at L0 {point['l0']:.3g}: {estimate({**point, 'estimate': point['value']})}"
    drawn = mark(marker, x(point["l0"]), y(point["value"]))
    href = links.get((arch, point["sparsity"]))
    ring = f'<circle class="ring" cx="{x(point["l0"]):.1f}" cy="{y(point["value"]):.1f}" r="9"/>'
    if href is None:
        return f"<g><title>{escape(words)}</title>{drawn}</g>"
    return f'<a href="{escape(href)}" aria-label="{escape(words)}"><title>{escape(words)}</title>{drawn}{ring}</a>'


def _table(block: Block, beside: Sequence[Control], links: Links) -> str:
    """A row per SAE, or per target L0 where it has several seeds."""
    kinds = _kinds(beside)
    head = ("SAEs", "L0", "value", "low", "high", *(f"{kind} control" for kind in kinds))
    return table(title(block), head, (_row(curve["arch"], point, beside, kinds, links)
                                      for curve in block["curves"] for point in curve["points"]))


def _row(
    arch: str, point: Mapping[str, Any], beside: Sequence[Control], kinds: Sequence[str], links: Links
) -> str:
    target = point["sparsity"]
    name = f"{arch} {target:g}" if target is not None else arch
    href = links.get((arch, target)) if target is not None else None
    cells = [f"{point['l0']:.3g}", *(number(point[key]) for key in ("value", "low", "high"))]
    same = [[one for one in beside if one.name == kind and one.sparsity == target] for kind in kinds]
    cells += [number(sum(values) / len(values) if (values := _most_alike(arch, some)) else None) for some in same]
    return row(link(href, name) if href else escape(name), cells)


def _most_alike(curve: str, beside: Sequence[Control]) -> list[float]:
    """The values of the controls whose curve has most settings of this one: where widths differ, of its own width."""
    own = split(curve)[1].items()
    shared = [len(own & split(one.curve)[1].items()) for one in beside]
    return [one.value for one, count in zip(beside, shared, strict=True) if count == max(shared)]
