"""pareto.png and .svg: the curves with their intervals; frequency.png and .svg: how often the latents fire."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from saesweep.report import style
from saesweep.results.sweep_table import PLACE, Details, aims

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {"font.size": 10, "legend.fontsize": 10.5, "axes.titlesize": 11, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
         "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.titlepad": 9,
         "svg.fonttype": "none"}
SHARES = {"frequency_over_1pct": ("-", "1%"), "frequency_over_10pct": (":", "10%")}


def pareto(df: pd.DataFrame, comparison: Mapping[str, Any]) -> dict[str, bytes]:
    """A column per model, site and layer (after four a new band), a row per measure; of one place the measures side by side."""
    places = [place for place in comparison["places"] if place["metrics"]]
    measures = [key for key in style.LABELS if any(key in place["metrics"] for place in places)]
    looks = style.looks(df["arch"])
    columns, beside = len(places) if len(places) <= 4 else 3, len(places) == 1
    rows = -(-len(places) // max(columns, 1)) * len(measures)
    wide, high = (rows, columns) if beside else (columns, rows)
    with _figure(max(0.9 + 3.5 * wide, 5), 0.7 + 2.6 * high) as (fig, files):
        axes = fig.subplots(high, wide, squeeze=False) if places else np.empty((0, 0))
        axes = axes.T if beside else axes
        for i, place in enumerate(places):
            column = axes[i // columns * len(measures) :, i % columns]
            points = df[(df[PLACE] == [place[key] for key in PLACE]).all(axis=1)]
            column[0].set_title(f"{place['model']}, {place['site']}, layer {place['layer']}")
            for ax in column[: len(measures)] if beside else [column[len(measures) - 1]]:
                ax.set_xlabel(style.LABELS["l0"])
            for ax, measure in zip(column, measures, strict=False):
                ax.set_ylabel(style.LABELS[measure] if i % columns == 0 else "")
                if measure in place["metrics"]:
                    _curves(ax, points, measure, place["metrics"][measure]["curves"], looks)
        for ax in axes.flat:
            ax.set_visible(ax.has_data())
        _legend(fig, style.looks(df.loc[np.isfinite(df["fvu"]), "arch"]))
    return files


def _curves(
    ax: "Axes", points: pd.DataFrame, measure: str, found: Sequence[Mapping[str, Any]], looks: Mapping[str, style.Look]
) -> None:
    for curve in found:
        colour, marker = looks[curve["arch"]]
        if None not in curve["low"]:
            ax.fill_between(curve["l0"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
        ax.plot(curve["l0"], curve["mean"], color=colour, marker=marker, ms=6, lw=1.6, zorder=2)
        own = points[points["arch"] == curve["arch"]]
        if len(own) > len(curve["l0"]):
            ax.scatter(own["l0"], own[measure], s=16, c=colour, marker=marker, alpha=0.4, lw=0, zorder=3)
    _l0_axis(ax, points["l0"])


def _l0_axis(ax: "Axes", l0: pd.Series) -> None:
    low, high = style.span(l0[l0 > 0])
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks(ticks := style.ticks(low, high), [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(color="#e4e4e4", lw=0.7)
    ax.set_axisbelow(True)


def frequency(df: pd.DataFrame, details: Sequence[Details]) -> dict[str, bytes]:
    """Per place a row: histograms of log10 firing rate at up to three targets, then the shares of frequent latents.

    After the JumpReLU paper's figures of feature frequencies (section 5.3): its pointwise histograms, and the share of
    latents that fire on more than 1% and 10% of the tokens.
    """
    fired = [one.rates is not None and row.state == "finished" for row, one in zip(df.itertuples(), details, strict=True)]
    if not any(fired):
        return {}
    places = list(df[fired].groupby(PLACE, sort=True))
    shown = _spread(list(dict.fromkeys(aims(df[fired].sort_values(["sparsity", "coefficient"])))))
    looks = style.looks(df.loc[fired, "arch"])
    with _figure(3.3 * (len(shown) + 1), 0.9 + 2.5 * len(places)) as (fig, files):
        axes = fig.subplots(len(places), len(shown) + 1, squeeze=False)
        for line, (name, points) in zip(axes, places, strict=True):
            line[0].set_ylabel("{}, {}, layer {}\nlatents".format(*name))
            for ax, aim in zip(line, shown, strict=False):
                ax.set_title(aim)
                at = points[aims(points) == aim]
                _histograms(ax, {row.arch: details[row.Index].rates for row in at[::-1].itertuples()}, looks)
            _shares(line[-1], points, looks)
        for ax in axes[-1][:-1]:
            ax.set_xlabel("log10 of the share of tokens")
        axes[-1][-1].set_xlabel(style.LABELS["l0"])
        _legend(fig, looks)
    return files


def _spread(values: Sequence[str]) -> list[str]:
    """The first, the middle and the last."""
    return list(dict.fromkeys([values[0], values[len(values) // 2], values[-1]]))


def _histograms(ax: "Axes", rates: Mapping[str, np.ndarray], looks: Mapping[str, style.Look]) -> None:
    for arch, rate in rates.items():
        edges, counts, _ = style.histogram(rate)
        ax.stairs(counts, edges, color=looks[arch].colour, lw=1.5)
    seen = np.concatenate([rate[rate > 0] for rate in rates.values()] or [np.array([1.0])])
    ax.set_xlim(np.floor(np.log10(seen.min())) if len(seen) else -5, 0)
    ax.set_ylim(bottom=0)
    ax.grid(color="#e4e4e4", lw=0.7)
    ax.set_axisbelow(True)


def _shares(ax: "Axes", points: pd.DataFrame, looks: Mapping[str, style.Look]) -> None:
    ax.set_title("share of latents that fire on")
    for arch, (colour, marker) in looks.items():
        for key, (line, _) in SHARES.items():
            own = points[points["arch"] == arch]
            mean = own.groupby(aims(own))[["l0", key]].mean().sort_values("l0")
            ax.plot(mean["l0"], mean[key], line, color=colour, marker=marker, ms=5, lw=1.5)
    handles = [ax.plot([], [], line, color="#555", lw=1.5, label=f"more than {share}")[0] for line, share in SHARES.values()]
    ax.legend(handles=handles, frameon=False, fontsize=9)
    _l0_axis(ax, points["l0"])
    ax.set_ylim(bottom=0)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple["Figure", dict[str, bytes]]]:
    """What is drawn on it stands in the files afterwards."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    files: dict[str, bytes] = {}
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(width, height), dpi=200, layout="constrained")
        yield fig, files
        for kind in ("png", "svg"):
            out = io.BytesIO()
            fig.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
            files[kind] = out.getvalue()


def _legend(fig: "Figure", looks: Mapping[str, style.Look]) -> None:
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], color=c, marker=m, ms=6, lw=1.6, label=arch) for arch, (c, m) in looks.items()]
    columns = min(len(keys), int(fig.get_figwidth() // 1.6)) or 1
    title = None if keys else "no finished SAEs"
    fig.legend(handles=keys, title=title, loc="outside upper center", ncols=columns, frameon=False)
