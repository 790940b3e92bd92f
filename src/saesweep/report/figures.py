"""pareto.png and .svg: the curves with their intervals. frequency.png and .svg: histograms of firing rates."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from saesweep.report import style
from saesweep.storage.sweep_table import PLACE, Details, imported, targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RC: Any = {"font.size": 10, "legend.fontsize": 10.5, "axes.titlesize": 11, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
           "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.titlepad": 9,
           "svg.fonttype": "none"}
FREQUENT = {"frequency_over_1pct": "1%", "frequency_over_10pct": "10%"}
Styles = Mapping[str, style.Style]


def pareto(df: pd.DataFrame, comparison: Mapping[str, Any]) -> dict[str, bytes]:
    """Content by file type. A column per hook point, a row per measure; with one hook point the measures stand side by side.

    More than four hook points are drawn in bands of three.
    """
    places = [place for place in comparison["places"] if place["metrics"]]
    measures = [key for key in style.LABELS if any(key in place["metrics"] for place in places)]
    styles = _styles(df)
    columns, beside = len(places) if len(places) <= 4 else 3, len(places) == 1
    rows = -(-len(places) // max(columns, 1)) * len(measures)
    wide, high = (rows, columns) if beside else (columns, rows)
    width = max(0.9 + 3.5 * wide, 5)
    with _figure(width, 0.7 + 2.6 * high + _of_legend(styles, width)) as (fig, files):
        axes: Any = fig.subplots(high, wide, squeeze=False) if places else np.empty((0, 0))
        axes = axes.T if beside else axes
        for i, place in enumerate(places):
            column = axes[i // columns * len(measures) :, i % columns][: len(measures)]
            _place(df, place, dict(zip(measures, column, strict=True)), styles, first=i % columns == 0, beside=beside)
        for ax in axes.flat:
            ax.set_visible(ax.has_data())
        _legend(fig, _styles(df.loc[np.isfinite(df["fvu"])]))
    return files


def _styles(df: pd.DataFrame) -> Styles:
    """SAEs that others have trained are hollow points."""
    return style.arch_styles(df["arch"], set(df.loc[imported(df), "arch"]))


def _place(
    df: pd.DataFrame, place: Mapping[str, Any], axes: "Mapping[str, Axes]", styles: Styles, *, first: bool, beside: bool
) -> None:
    """One hook point, its axes by measure. first: of its row, so the y axes have labels."""
    points = df.loc[(df[PLACE] == [place[key] for key in PLACE]).all(axis=1)]
    panels = list(axes.values())
    panels[0].set_title(f"{place['model']}, {place['site']}, layer {place['layer']}")
    for ax in panels if beside else panels[-1:]:
        ax.set_xlabel(style.LABELS["l0"])
    for measure, ax in axes.items():
        ax.set_ylabel(style.LABELS[measure] if first else "")
        if measure in place["metrics"]:
            _curves(ax, points, measure, place["metrics"][measure]["curves"], styles)


def _curves(ax: "Axes", points: pd.DataFrame, measure: str, curves: Sequence[Mapping[str, Any]], styles: Styles) -> None:
    for curve in curves:
        drawn = styles[curve["arch"]]
        colour, marker = drawn.colour, drawn.marker
        if None not in curve["low"]:
            ax.fill_between(curve["l0"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
        ax.plot(curve["l0"], curve["mean"], color=colour, marker=marker, ms=6, lw=1.6, ls=drawn.line, zorder=2)
        own = points.loc[points["arch"] == curve["arch"]]
        if len(own) > len(curve["l0"]):
            ax.scatter(own["l0"], own[measure], s=16, c=colour, marker=marker, alpha=0.4, lw=0, zorder=3)
    for arch, own in points.loc[imported(points)].groupby("arch"):
        ax.scatter(own["l0"], own[measure], s=42, marker=styles[str(arch)].marker, facecolors="none",
                   edgecolors=styles[str(arch)].colour, lw=1.5, zorder=3)
    _l0_axis(ax, points)


def _l0_axis(ax: "Axes", points: pd.DataFrame) -> None:
    low, high = style.l0_limits(points.loc[points["l0"] > 0, "l0"])
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks(ticks := style.l0_ticks(low, high), [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    _grid(ax)


def _grid(ax: "Axes") -> None:
    ax.grid(color="#e4e4e4", lw=0.7)
    ax.set_axisbelow(True)


def frequency(df: pd.DataFrame, details: Sequence[Details]) -> dict[str, bytes]:
    """Per hook point a row: histograms of log10 firing rate at up to three targets, then the shares of frequent latents.

    After the feature frequency figures of the JumpReLU paper (section 5.3): its pointwise histograms, and the share of
    latents that fire on more than 1% and on more than 10% of the tokens, each on an axis of its own: the second is far
    smaller. Latents with too few firings for a rate are not in the histograms; their share is written beside them. Empty
    where no finished SAE has firing rates.
    """
    found = {i: style.histogram(one.rates, one.counted) for i, one in enumerate(details) if one.rates is not None}
    fired = df.loc[[i in found and state == "finished" for i, state in enumerate(df["state"])]]
    if fired.empty:
        return {}
    places = list(fired.groupby(PLACE, sort=True))
    own = fired.loc[~imported(fired)] if not imported(fired).all() else fired
    aims = list(dict.fromkeys(targets(own.sort_values(["sparsity", "coefficient"]))))
    columns = list(dict.fromkeys([aims[0], aims[len(aims) // 2], aims[-1]]))
    styles = _styles(fired)
    width = 3 * (len(columns) + len(FREQUENT))
    with _figure(width, 0.9 + 2.5 * len(places) + _of_legend(styles, width)) as (fig, files):
        axes: Any = fig.subplots(len(places), len(columns) + len(FREQUENT), squeeze=False)
        for line, (_, points) in zip(axes, places, strict=True):
            line[0].set_ylabel("{}, {}, layer {}\nlatents".format(*points.iloc[0][PLACE]))
            for ax, target in zip(line, columns, strict=False):
                ax.set_title(target)
                arch = points["arch"][(targets(points) == target) & points.index.isin(own.index)]
                _histograms(ax, {name: found[i] for i, name in reversed([*arch.items()])}, styles)
            for ax, (key, share) in zip(line[len(columns) :], FREQUENT.items(), strict=True):
                ax.set_title(f"latents on over {share} of tokens")
                _frequent(ax, points, key, styles)
        for ax in axes[-1][: len(columns)]:
            ax.set_xlabel(f"log10 of the share of {_tokens(details)}")
        for ax in axes[-1][len(columns) :]:
            ax.set_xlabel(style.LABELS["l0"])
        _legend(fig, styles)
    return files


def _tokens(details: Sequence[Details]) -> str:
    counted = {one.counted for one in details if one.counted is not None}
    return f"{min(counted):,} tokens" if len(counted) == 1 else "tokens"


def _histograms(ax: "Axes", found: Mapping[str, style.Histogram], styles: Styles) -> None:
    ends = []
    for arch, (edges, counts, *_) in found.items():
        ax.stairs(counts, edges, color=styles[arch].colour, lw=1.5, ls=styles[arch].line)
        ends.append(edges[:-1][counts > 0].min(initial=-1.0))
    ax.set_xlim(min(ends, default=-5) - 0.1, 0)
    ax.set_ylim(bottom=0)
    _grid(ax)
    lines = [(f"under {max(one.few for one in found.values())} firings", "#444"), *(
        (f"{(one.never + one.rare) / max(1, one.never + one.rare + one.counts.sum()):.0%}", styles[arch].colour)
        for arch, one in sorted(found.items(), key=lambda item: list(styles).index(item[0])))]
    for i, (words, colour) in enumerate(lines):
        ax.annotate(words, (1, 1), (-2, -2 - 10.5 * i), "axes fraction", "offset points", color=colour, fontsize=8.5,
                    ha="right", va="top")


def _frequent(ax: "Axes", points: pd.DataFrame, key: str, styles: Styles) -> None:
    for arch, drawn in styles.items():
        own = points.loc[points["arch"] == arch]
        means = own.groupby(targets(own))[["l0", key]].mean().sort_values(by="l0")
        ax.plot(means["l0"], means[key], color=drawn.colour, marker=drawn.marker, ms=5, **_line(drawn, 1.5))
    _l0_axis(ax, points)
    ax.set_ylim(bottom=0)


def _line(drawn: style.Style, width: float) -> dict[str, Any]:
    """Arguments of a line of a plot: of hollow points there is none."""
    return {"ls": "none", "mfc": "none", "mew": 1.5} if drawn.hollow else {"ls": drawn.line, "lw": width}


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple["Figure", dict[str, bytes]]]:
    """A figure in inches, and a dict that holds it as png and svg after the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    files: dict[str, bytes] = {}
    with mpl.rc_context(RC):
        fig = Figure(figsize=(width, height), dpi=200, layout="constrained")
        yield fig, files
        for kind in ("png", "svg"):
            out = io.BytesIO()
            fig.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
            files[kind] = out.getvalue()
            fig.set_layout_engine("none")  # the second file has the layout of the first


def _columns(styles: Styles, width: float) -> int:
    """Of a legend, in a figure so many inches wide."""
    each = max(1.6, 0.6 + 0.08 * max(map(len, styles), default=0))
    return max(1, min(len(styles), int(width // each)))


def _of_legend(styles: Styles, width: float) -> float:
    """The height in inches of a legend's rows after the second."""
    return 0.23 * max(0, math.ceil(len(styles) / _columns(styles, width)) - 2)


def _legend(fig: "Figure", styles: Styles) -> None:
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], color=one.colour, marker=one.marker, ms=6, label=curve, **_line(one, 1.6))
            for curve, one in styles.items()]
    columns = _columns(styles, fig.get_figwidth())
    title = None if keys else "no finished SAEs"
    long = 3.4 if any(one.dash for one in styles.values()) else 2.0  # lines of a legend that show their dashes
    fig.legend(handles=keys, title=title, loc="outside upper center", ncols=columns, frameon=False, handlelength=long)
