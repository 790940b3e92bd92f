"""Fronts and comparisons: the finished SAEs of a sweep as a table, a figure and a page.

    python -m saesweep.pareto outputs/default

reads every <model>/<site>.<layer>/<arch>/<sparsity>[.<seed>]/eval.json under the folder, writes pareto.csv, pareto.png
and pareto.html there, and prints the table. A point is on the front if no other point of the same model, site and layer
has both at most its l0 and at most its fvu, and one of them smaller.
"""

import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from saesweep import curves, page
from saesweep.errors import UsageError

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

NAMES = ["model", "site", "layer", "arch", "sparsity", "seed"]
SIZES = ["d_in", "d_sae", "tokens", "coefficient"]
METRICS = ["l0", "fvu", "mse", "cosine", "relative_reconstruction_bias",
           "ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered",
           "dead", "frequency_over_1pct", "frequency_over_10pct"]  # fmt: skip
COLUMNS = [*NAMES, *SIZES, *METRICS, "sinks", "on_front", "path"]
SHOWN = {"arch": "s", "sparsity": "g", "seed": "g", "l0": ".2f", "fvu": ".4f", "delta_loss": ".4f",
         "loss_recovered": ".4f", "dead": ".3f"}  # fmt: skip

STYLE = {"font.size": 10, "legend.fontsize": 10.5, "axes.titlesize": 11, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
         "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.titlepad": 9}  # fmt: skip


def collect(sweep: Path) -> pd.DataFrame:
    """One row per finished SAE under the sweep's folder, in the order of model, site, layer, sparsity, arch, seed."""
    jobs = [file.parent for file in sorted(Path(sweep).glob("*/*/*/*/eval.json"))]
    rows = [_row(job, sweep) for job in jobs if (job / ".hydra" / "config.yaml").is_file()]
    df = pd.DataFrame(rows, columns=[c for c in COLUMNS if c != "on_front"])
    df[[*METRICS, "coefficient"]] = df[[*METRICS, "coefficient"]].astype(float)
    df = df.sort_values(["model", "site", "layer", "sparsity", "arch", "seed"], kind="stable", ignore_index=True)
    return df.assign(on_front=_on_front(df))[COLUMNS]


def _row(job: Path, sweep: Path) -> dict:
    config = OmegaConf.load(job / ".hydra" / "config.yaml")
    numbers = _numbers(job / "eval.json")
    named = {key: OmegaConf.select(config, f"{key}.name") for key in ("model", "site", "arch")}
    plain = {key: OmegaConf.select(config, key) for key in ("layer", "sparsity", "seed")}
    measured = {key: numbers.get(key) for key in [*SIZES, *METRICS, "sinks"]}
    return {**named, **plain, **measured, "path": job.relative_to(sweep).as_posix()}


def _numbers(file: Path) -> Mapping[str, int | float | None]:
    try:
        numbers = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is not readable JSON ({error}): delete the file and run the sweep again") from error
    missing = [key for key in ("l0", "fvu") if key not in numbers]
    if missing:
        raise UsageError(f"{file} has no {' and no '.join(missing)}: delete the file and run the sweep again")
    return numbers


def _on_front(df: pd.DataFrame) -> list[bool]:
    """Points without numbers (failed runs) are on no front and dominate nobody."""
    l0, fvu = df["l0"].to_numpy(float), df["fvu"].to_numpy(float)
    place = df.groupby(["model", "site", "layer"]).ngroup().to_numpy()

    def dominated(i: int) -> bool:
        no_worse = (place == place[i]) & (l0 <= l0[i]) & (fvu <= fvu[i])
        return bool((no_worse & ((l0 < l0[i]) | (fvu < fvu[i]))).any())

    return [bool(np.isfinite([l0[i], fvu[i]]).all()) and not dominated(i) for i in range(len(df))]


def matched(df: pd.DataFrame, reference: str = "topk") -> pd.DataFrame:
    """fvu of each architecture (a column), mean over seeds, over the reference's at the same place and sparsity."""
    mean = df.pivot_table("fvu", index=["model", "site", "layer", "sparsity"], columns="arch", aggfunc="mean")
    return mean.div(mean[reference], axis=0) if reference in mean else mean.iloc[:0]


def table(df: pd.DataFrame) -> str:
    """Aligned plain text, one block per model, site and layer; `*` marks the front, `-` what was not measured."""
    if df.empty:
        return "no finished SAEs"
    shown = [key for key in SHOWN if key != "seed" or df["seed"].nunique() > 1]
    df = df.sort_values(["model", "site", "layer", "sparsity", "arch", "seed"], kind="stable")
    columns = [_column(key, df[key], SHOWN[key]) for key in shown]
    columns.append(["front", *("*" if on_front else "" for on_front in df["on_front"])])
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    places = [f"{row.model} {row.site}.{row.layer}" for row in df.itertuples()]
    blocks = [lines[0]]
    for i, place in enumerate(places):
        blocks += ([f"\n{place}"] if place not in places[:i] else []) + [lines[i + 1]]
    return "\n".join(blocks)


def _column(key: str, values: pd.Series, form: str) -> list[str]:
    cells = [key, *(_cell(value, form) for value in values)]
    width = max(map(len, cells))
    return [cell.ljust(width) if form == "s" else cell.rjust(width) for cell in cells]


def _cell(value: object, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)


def write(sweep: Path) -> pd.DataFrame:
    """Write pareto.csv, pareto.png and pareto.html into the sweep's folder, each whole or not at all."""
    sweep = Path(sweep)
    if not sweep.is_dir():
        raise UsageError(f"{sweep} is no folder: give a sweep's, such as outputs/default")
    df = collect(sweep)
    _replace(sweep / "pareto.csv", df.to_csv(index=False).encode())
    _replace(sweep / "pareto.png", figure(df))
    _replace(sweep / "pareto.html", page.html(df, sweep.resolve().name).encode())
    return df


def _replace(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    draft.write_bytes(content)
    draft.replace(file)


def figure(df: pd.DataFrame) -> bytes:
    """The curves as PNG: a column per model, site and layer (after four a new band), a row per measure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    places, measures = curves.places(df), curves.measures(df)
    columns = len(places) if len(places) <= 4 else 3
    bands = -(-len(places) // max(columns, 1))
    with mpl.rc_context(STYLE):
        rows = bands * len(measures)
        fig = Figure(figsize=(max(0.9 + 3.5 * columns, 5), 0.7 + 2.6 * rows), dpi=200, layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False) if places else np.empty((0, 0))
        for i, (place, points) in enumerate(places.items()):
            column = axes[i // columns * len(measures) :, i % columns]
            column[0].set_title(place)
            column[len(measures) - 1].set_xlabel(curves.WORDS["l0"])
            for ax, measure in zip(column, measures, strict=False):
                ax.set_ylabel(curves.WORDS[measure] if i % columns == 0 else "")
                _panel(ax, points, measure)
        for ax in axes.flat:
            ax.set_visible(ax.has_data())
        _legend(fig, sorted({arch for points in places.values() for arch in points["arch"]}), df)
        out = io.BytesIO()
        fig.savefig(out, format="png")
    return out.getvalue()


def _panel(ax: "matplotlib.axes.Axes", points: pd.DataFrame, measure: str) -> None:
    for curve in curves.curves(points, measure):
        colour, marker = curve.look
        ax.plot(*curve.mean, color=colour, marker=marker, ms=6, lw=1.6, zorder=2)
        if curve.repeated:
            seeds = curve.points["l0"], curve.points[measure]
            ax.scatter(*seeds, s=16, c=colour, marker=marker, alpha=0.4, lw=0, zorder=3)
    low, high = curves.span(points["l0"])
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks(ticks := curves.ticks(low, high), [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(color="#e4e4e4", lw=0.7)
    ax.set_axisbelow(True)


def _legend(fig: "matplotlib.figure.Figure", archs: list[str], df: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    looks = {arch: look for arch, look in curves.looks(df["arch"]).items() if arch in archs}
    keys = [Line2D([], [], color=c, marker=m, ms=6, lw=1.6, label=arch) for arch, (c, m) in looks.items()]
    title = None if keys else "no finished SAEs"
    columns = min(len(keys), int(fig.get_figwidth() // 1.6)) or 1
    fig.legend(handles=keys, title=title, loc="outside upper center", ncols=columns, frameon=False)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m saesweep.pareto outputs/<name>")
    try:
        print(table(write(Path(sys.argv[1]))))
    except UsageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
