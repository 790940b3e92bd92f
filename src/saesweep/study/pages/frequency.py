"""A score against the frequency of the latents: a dot per latent, and the mean of each half decade with its interval."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd

from saesweep.report.style import Style
from saesweep.study.comparison.catalogue import score as about
from saesweep.study.pages.axes import BOX, Scale, even_ticks, frame, mark, path, scale, span, svg
from saesweep.study.pages.facts import number
from saesweep.study.pages.template import row, table

BIN, DOTS, LEAST = 0.5, 1500, 3  # decades; dots drawn of an architecture; latents behind a mean that is drawn


class Bin(NamedTuple):
    start: float  # log10 of the frequency
    latents: int
    mean: float
    half: float  # of the 95% interval over latents, normal approximation; NaN of one latent


def bins(frequency: np.ndarray, score: np.ndarray, weight: np.ndarray) -> list[Bin]:
    """Weighted means by half decade of the frequency."""
    place = np.floor(np.log10(frequency) / BIN + 1e-9) * BIN
    return [_bin(float(start), score[place == start], weight[place == start]) for start in np.unique(place)]


def _bin(start: float, score: np.ndarray, weight: np.ndarray) -> Bin:
    mean = float((weight * score).sum() / weight.sum())
    count = len(score)
    error = math.sqrt(float((weight**2 * (score - mean) ** 2).sum()) * count / max(count - 1, 1)) / float(weight.sum())
    return Bin(start, count, mean, 1.96 * error if count > 1 else math.nan)


def figure(scores: pd.DataFrame, name: str, styles: Mapping[str, Style]) -> str:
    """scores: rows of the trained SAEs at one hook point. Empty where no latent has the score."""
    known = scores.loc[scores[name].notna() & (scores["frequency"] > 0)]
    if known.empty:
        return ""
    low, high = math.floor(math.log10(known["frequency"].min())), 0
    bottom, top = span(known[name].astype(float))
    x, y = scale(low, high, BOX.left, BOX.right), scale(bottom, top, BOX.floor, BOX.top)
    each = {arch: rows for arch in styles if len(rows := known.loc[known["arch"] == arch])}
    found = {arch: bins(*(rows[key].to_numpy(float) for key in ("frequency", name, "weight"))) for arch, rows in each.items()}
    words = about(name).words
    ticks = [(at, f"{100 * 10.0**at:g}%") for at in range(low, high + 1)]
    parts = [f'<g class="a{n}">{_dots(each[arch], name, x, y)}</g>' for n, arch in enumerate(styles) if arch in each]
    parts += [f'<g class="a{n}">{_means(found[arch], style.marker, x, y)}</g>'
              for n, (arch, style) in enumerate(styles.items()) if arch in each]
    drawn = svg(f"{words} by frequency of the latent; the means are in the table below",
                frame(x, y, ticks, even_ticks(bottom, top), "share of tokens on which a latent is active", words), *parts)
    return f"<figure>{drawn}<details><summary>Numbers</summary>{_table(found, words)}</details></figure>"


def _dots(rows: pd.DataFrame, name: str, x: Scale, y: Scale) -> str:
    shown = rows.iloc[:: -(-len(rows) // DOTS)]
    points = zip(np.log10(shown["frequency"].astype(float)), shown[name].astype(float), strict=True)
    return f'<path class="dots" aria-hidden="true" d="{"".join(f"M{x(f):.1f} {y(s):.1f}h0" for f, s in points)}"/>'


def _means(found: Sequence[Bin], marker: str, x: Scale, y: Scale) -> str:
    shown = [one for one in found if one.latents >= LEAST]
    centres = [(x(one.start + BIN / 2), y(one.mean)) for one in shown]
    if not shown:
        return ""
    bars = "".join(f"M{at:.1f} {y(one.mean - one.half):.1f}V{y(one.mean + one.half):.1f}"
                   for (at, _), one in zip(centres, shown, strict=True))
    return (f'<g aria-hidden="true"><path class="bars" d="{bars}"/><path class="line" d="{path(centres)}"/>'
            f'{"".join(mark(marker, *at) for at in centres)}</g>')


def _table(found: Mapping[str, Sequence[Bin]], words: str) -> str:
    head = ("architecture", "frequency from", "to", "latents", "mean", "low", "high")
    return table(f"{words} by frequency", head, _rows(found))


def _rows(found: Mapping[str, Sequence[Bin]]) -> Iterator[str]:
    for arch, each in found.items():
        for one in each:
            ends = f"{10**one.start:.2g}", f"{10 ** (one.start + BIN):.2g}"
            values = (number(value) for value in (one.mean, one.mean - one.half, one.mean + one.half))
            yield row(escape(arch), (*ends, str(one.latents), *values))
