"""How the curves look, and pareto.html: one offline page with the curves as inline SVG and every number in a table.

The curves and the table need no script; the script adds a card with a point's numbers on hover, focus and click.
"""

import math
from html import escape
from string import Template
from urllib.parse import quote

import numpy as np
import pandas as pd

from saesweep.curves import WORDS, Look, curves, looks, measures, places, span, ticks

POLYGONS = {"s": [(-1, -1), (1, -1), (1, 1), (-1, 1)], "^": [(0, -1.2), (1.2, 1), (-1.2, 1)],
            "D": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)], "v": [(0, 1.2), (1.2, -1), (-1.2, -1)],
            "<": [(-1.2, 0), (1, 1.2), (1, -1.2)], ">": [(1.2, 0), (-1, 1.2), (-1, -1.2)]}  # fmt: skip
WHOLE = {"layer", "sparsity", "seed", "d_in", "d_sae", "tokens", "sinks"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 270, 62, 12, 12, 48  # of a panel, in its own units


def _even(low: float, high: float) -> tuple[float, float, list[tuple[float, str]]]:
    """A linear axis around the values with three to seven round ticks and their texts."""
    air = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - air, high + air
    rough = (high - low) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = min((unit * m for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return low, high, [(value, f"{value:.{decimals}f}") for value in values]


def _mark(look: Look, x: float, y: float, size: float = 4.4, kind: str = "mark") -> str:
    if look.marker == "o":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{1.12 * size:.1f}" fill="{look.colour}"/>'
    corners = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in POLYGONS[look.marker])
    return f'<polygon class="{kind}" points="{corners}" fill="{look.colour}"/>'


def _svg(title: str, points: pd.DataFrame, measure: str) -> str:
    """One panel: the axes, then per architecture the mean line and a link per SAE to its row of the table."""
    drawn = curves(points, measure)
    low, high = span(points["l0"])
    bottom, top, y_ticks = _even(points[measure].min(), points[measure].max())

    def x(l0: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(l0 / low) / math.log(high / low)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom)

    body = [_axes([(x(t), f"{t:g}") for t in ticks(low, high)], [(y(t), text) for t, text in y_ticks], measure)]
    for curve in drawn:
        line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(*curve.mean, strict=True))
        body.append(f'<polyline points="{line}" fill="none" stroke="{curve.look.colour}" stroke-width="1.8"/>')
        if curve.repeated:
            body += [_mark(curve.look, x(a), y(b), kind="mean") for a, b in zip(*curve.mean, strict=True)]
    for curve in drawn:
        for i, row in curve.points.iterrows():
            mark = _mark(curve.look, x(row["l0"]), y(row[measure]), *((2.8, "mark seed") if curve.repeated else ()))
            body.append(_point(i, row, mark, x(row["l0"]), y(row[measure])))
    label = escape(f"{title}: {WORDS[measure]} against {WORDS['l0']}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{label}">{"".join(body)}</svg>'


def _axes(x_ticks: list[tuple[float, str]], y_ticks: list[tuple[float, str]], measure: str) -> str:
    floor, right, middle = HEIGHT - BOTTOM, WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2
    grid = [f"M{x:.1f} {TOP}V{floor}" for x, _ in x_ticks] + [f"M{LEFT} {y:.1f}H{right}" for y, _ in y_ticks]
    texts = [f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{text}</text>' for x, text in x_ticks]
    texts += [f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>' for y, text in y_ticks]
    texts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{WORDS["l0"]}</text>')
    texts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{WORDS[measure]}</text>')
    lines = f'<path class="grid" d="{"".join(grid)}"/><path class="axis" d="M{LEFT} {TOP}V{floor}H{right}"/>'
    return f'<g aria-hidden="true">{lines}{"".join(texts)}</g>'


def _point(i: int, row: pd.Series, mark: str, x: float, y: float) -> str:
    keys = [key for key in ("l0", "fvu", "delta_loss", "loss_recovered") if np.isfinite(row[key])]
    numbers = ", ".join(f"{key} {_cell(key, row[key])}" for key in keys)
    label = escape(f"{row['arch']}, sparsity {row['sparsity']}, seed {row['seed']}: {numbers}; {row['path']}")
    hit = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="transparent"/>'
    return f'<a href="#sae-{i}" data-sae="{i}"><title>{label}</title>{hit}{mark}</a>'


def _cell(key: str, value: object) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return escape(value)
    return f"{value:.15g}" if key in WHOLE else f"{value:#.4g}"


def _table(df: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{key}</th>' for key in df.columns)
    body = "".join(_row(i, row) for i, row in df.iterrows())
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(i: int, row: pd.Series) -> str:
    cells = {key: f"<td>{_cell(key, value)}</td>" for key, value in row.items()}
    cells["arch"] = f'<th scope="row">{escape(row["arch"])}</th>'
    cells["path"] = f'<td><a href="{escape(quote(row["path"]))}/">{escape(row["path"])}</a></td>'
    return f'<tr id="sae-{i}">{"".join(cells.values())}</tr>'


def _legend(df: pd.DataFrame) -> str:
    def item(mark: str, text: str) -> str:
        return f'<li><svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{mark}</svg>{escape(text)}</li>'

    return "".join(item(_mark(look, 8.0, 8.0), arch) for arch, look in looks(df["arch"]).items())


def html(df: pd.DataFrame, comparison, details, name: str) -> str:
    """The whole page; its links to the SAEs' folders are relative to the sweep's folder."""
    panels = [
        f"<section><h2>{escape(title)}</h2>"
        + "".join(_svg(title, points, key) for key in measures(points)) + "</section>"
        for title, points in places(df).items()
    ]  # fmt: skip
    failed = int((~np.isfinite(df["fvu"])).sum())
    count = f"{len(df)} SAE{'s' * (len(df) != 1)}" + (f", {failed} of them without numbers" if failed else "")
    return PAGE.substitute(name=escape(name), count=count, legend=_legend(df), panels="".join(panels), table=_table(df))


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$name: reconstruction against sparsity</title>
<style>
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff }
body { max-width: 82rem; margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 5rem }
h1 { font-size: 1.45rem; line-height: 1.25; margin: .5rem 0 .25rem }
h2 { font-size: 1rem; margin: 0 0 .25rem }
p { margin: 0 0 .75rem; max-width: 44rem; color: #444 }
a { color: #00508a }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0 }
.legend li { display: flex; align-items: center; gap: .4rem }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.5rem 1.75rem }
.panels section { max-width: 31rem }
.panels section:only-child { max-width: none; display: grid; column-gap: 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 31rem)) }
.panels h2 { grid-column: 1 / -1 }
.panels svg { display: block; width: 100%; height: auto; overflow: visible; font-size: 13px; fill: #333 }
.grid { stroke: #e6e6e6; fill: none }
.axis { stroke: #555; fill: none }
.mark { stroke: transparent; stroke-width: 1 }
.seed { opacity: .5 }
svg a { cursor: pointer; outline: none }
svg a:hover .mark, svg a:focus-visible .mark, svg a.same .mark { stroke: #000; stroke-width: 2; opacity: 1 }
.scroll { overflow-x: auto; border: 1px solid #ccc; margin-top: .5rem }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .3rem .65rem; text-align: right; font-weight: 400 }
thead th { font-weight: 600; background: #f1f1f1; border-bottom: 1px solid #999 }
tbody th { font-weight: 600 }
tbody tr:nth-child(even) { background: #f8f8f8 }
tbody tr:target, tbody tr.same { background: #fff2b8 }
#card { position: fixed; z-index: 1; max-width: calc(100vw - 1rem); box-sizing: border-box; padding: .6rem .8rem;
  font-size: .85rem; line-height: 1.4;
  background: #fff; border: 1px solid #777; border-radius: .4rem; box-shadow: 0 3px 14px #0003 }
#card[hidden] { display: none }
#card dl { display: grid; grid-template-columns: auto auto; gap: 0 1rem; margin: .3rem 0 }
#card dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums }
#card a { overflow-wrap: anywhere }
</style>
</head>
<body>
<h1>$name: reconstruction against sparsity</h1>
<p>$count, measured on the same held-out tokens. Lines join the means over seeds. A point leads to its row in the table
below; the same numbers in full precision are in <a href="pareto.csv">pareto.csv</a>.</p>
<ul class="legend" aria-label="Architectures">$legend</ul>
<main class="panels">$panels</main>
<h2 id="numbers" style="margin-top:2rem">All numbers</h2>
<div class="scroll" role="region" aria-labelledby="numbers" tabindex="0">$table</div>
<div id="card" role="status" hidden></div>
<script>
"use strict";
const card = document.getElementById("card");
const heads = [...document.querySelectorAll("thead th")].map(th => th.textContent);
const shown = ["l0", "fvu", "delta_loss", "loss_recovered", "dead", "coefficient", "tokens", "on_front"];
let pinned = null;
function mark(id, on) {
  document.querySelectorAll("[data-sae='" + id + "'], #sae-" + id).forEach(e => e.classList.toggle("same", on));
}
function fill(point) {
  const cells = [...document.getElementById("sae-" + point.dataset.sae).cells];
  const cell = key => cells[heads.indexOf(key)];
  const title = document.createElement("b");
  title.textContent = ["arch", "sparsity"].map(key => cell(key).textContent).join(", sparsity ")
    + ", seed " + cell("seed").textContent;
  const list = document.createElement("dl");
  for (const key of shown) {
    list.append(Object.assign(document.createElement("dt"), {textContent: key}),
                Object.assign(document.createElement("dd"), {textContent: cell(key).textContent}));
  }
  card.replaceChildren(title, list, cell("path").firstChild.cloneNode(true));
}
function place(point) {
  const at = point.querySelector(".mark").getBoundingClientRect(), gap = 14;
  const left = at.right + gap + card.offsetWidth < innerWidth ? at.right + gap : at.left - gap - card.offsetWidth;
  card.style.left = Math.max(8, Math.min(left, innerWidth - card.offsetWidth - 8)) + "px";
  const beside = left >= 8, above = at.top - gap - card.offsetHeight;
  const top = beside ? at.top - card.offsetHeight / 2 : above > 8 ? above : at.bottom + gap;
  card.style.top = Math.max(8, Math.min(top, innerHeight - card.offsetHeight - 8)) + "px";
}
function hide() {
  if (card.dataset.sae) mark(card.dataset.sae, false);
  card.hidden = true;
  pinned = null;
}
function show(point) {
  const pin = pinned;
  hide();
  pinned = pin;
  card.dataset.sae = point.dataset.sae;
  mark(card.dataset.sae, true);
  fill(point);
  card.hidden = false;
  place(point);
}
for (const point of document.querySelectorAll("a[data-sae]")) {
  const title = point.querySelector("title");  // the browser's tooltip would cover the card
  point.setAttribute("aria-label", title.textContent);
  title.remove();
  point.addEventListener("pointerenter", () => pinned || show(point));
  point.addEventListener("pointerleave", () => pinned || hide());
  point.addEventListener("focus", () => show(point));
  point.addEventListener("blur", event => card.contains(event.relatedTarget) || pinned || hide());
  point.addEventListener("click", event => {
    event.preventDefault();
    event.stopPropagation();
    pinned = point;
    show(point);
  });
}
document.addEventListener("click", event => card.contains(event.target) || hide());
document.addEventListener("keydown", event => event.key === "Escape" && hide());
addEventListener("scroll", () => pinned ? place(pinned) : hide(), {passive: true});
</script>
</body>
</html>
""")
