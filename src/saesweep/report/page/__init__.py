"""pareto.html: one offline page with the curves of a sweep, the comparison of architectures, and the details of each SAE.

The text and tables are HTML and need no script (tables.py, verdict_tables.py). The script (*.js) draws the curves and
shows one SAE at a time, from JSON in the page.
"""

import json
import math
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from saesweep.report import wording
from saesweep.report.page import tables, verdict_tables
from saesweep.report.page.tables import Place
from saesweep.report.style import BIN_EDGES, LABELS, arch_styles, histogram
from saesweep.storage.curves import VARIANT, split
from saesweep.storage.sweep_table import PLACE, Details, imported, targets

MAX_ROWS = 60  # of a training curve
SCRIPTS = ["figures.js", "panels.js", "detail.js", "page.js"]  # page.js last: it runs the page
OF_STUDY = "latents.js"  # before page.js, where there is a study


def html(df: pd.DataFrame, comparison: dict, details: list[Details], name: str) -> str:
    """df: a row per SAE, with its path relative to the folder of the page. comparison: the content of pareto.json."""
    df = df.reset_index(drop=True)
    parts = {
        "name": escape(name),
        "count": tables.count(df),
        "imported": f"<p>{wording.imported('Hollow points')}</p>" if imported(df).any() else "",
        "summary": verdict_tables.summary(comparison),
        "verdicts": verdict_tables.tables(comparison),
        "without_results": tables.without_results(df, [d.reason for d in details]),
        "table": tables.table(df.drop(columns=VARIANT, errors="ignore")),
        "css": _file("page.css"),
        "js": "".join(map(_file, _scripts(details))),
        "data": embedded(_data(df, comparison, details)),
    }
    return Template(_file("page.html")).substitute(parts)


def _scripts(details: list[Details]) -> list[str]:
    of_study = [OF_STUDY] if any(detail.latents for detail in details) else []
    return [*SCRIPTS[:-1], *of_study, SCRIPTS[-1]]


def _file(name: str) -> str:
    return files("saesweep.report.page").joinpath(name).read_text(encoding="utf-8")


def embedded(data: object) -> str:
    """JSON without any `<`, so that it can neither end the script element nor begin a comment."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _data(df: pd.DataFrame, comparison: dict, details: list[Details]) -> dict[str, Any]:
    archs = arch_styles(df["arch"], set(df.loc[imported(df), "arch"]))
    places = sorted(set(_keys(df)))
    metrics = [key for key in LABELS if key != "l0" and np.isfinite(df[key].to_numpy(float)).any()] or ["fvu"]
    return {
        "labels": {key: LABELS[key] for key in ["l0", *metrics]},
        "metrics": metrics,
        "archs": [[arch, *style] for arch, style in archs.items()],
        "varied": _varied(list(archs)),
        "places": [[*map(str, place), tables.title(place, places)] for place in places],
        "saes": {
            "place": [places.index(place) for place in _keys(df)],
            "arch": [list(archs).index(arch) for arch in df["arch"]],
            "state": df["state"].tolist(),
            "target": targets(df).tolist(),
            **{key: _short(df[key]) for key in ["sparsity", "seed", "l0", *metrics]},
        },
        "lines": _lines(df, comparison, metrics, places),
        "edges": [round(edge, 1) for edge in BIN_EDGES.tolist()],
        "config": _config([d.config for d in details]),
        "details": [_detail(d) for d in details],
    }


def _varied(curves: list[str]) -> dict[str, list[str | None]]:
    """What tells curves apart beside their place, by key: per curve its value. Empty where each architecture is one curve."""
    names = [split(curve) for curve in curves]
    keys = dict.fromkeys(key for _, settings in names for key in settings)
    of: dict[str, list[str | None]] = {"architecture": [arch for arch, _ in names]} if keys else {}
    return of | {key: [settings.get(key) for _, settings in names] for key in keys}


def _keys(df: pd.DataFrame) -> list[Place]:
    return [(model, site, int(layer)) for model, site, layer in df[PLACE].to_numpy(object).tolist()]


def _lines(
    df: pd.DataFrame, comparison: dict, metrics: list[str], places: list[Place]
) -> dict[str, list[list[dict[str, Any]]]]:
    """Of each metric, per hook point its curves: of the comparison, with bands; of a metric that is not compared, the means
    over seeds."""
    compared = {(p["model"], p["site"], p["layer"]): p["metrics"] for p in comparison["places"]}
    own = df.loc[~imported(df)]
    keys, lines = _keys(own), dict[str, list[list[dict[str, Any]]]]((metric, []) for metric in metrics)
    for place in places:
        blocks = compared.get(place, {})
        means = _means(own.loc[[key == place for key in keys]], [metric for metric in metrics if not blocks.get(metric)])
        for metric in metrics:
            curves = means[metric] if metric in means else blocks[metric]["curves"]
            lines[metric].append(
                [{"arch": c["arch"], **{key: _short(c[key]) for key in ("l0", "mean", "low", "high")}} for c in curves])
    return lines


def _means(points: pd.DataFrame, metrics: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Of each metric the means over seeds of the SAEs that have it, by architecture; metrics of the same SAEs at once."""
    of_l0 = np.isfinite(points["l0"].to_numpy(float))
    finite = {metric: tuple((of_l0 & np.isfinite(points[metric].to_numpy(float))).tolist()) for metric in metrics}
    found = dict[str, list[dict[str, Any]]]((metric, []) for metric in metrics)
    for known in dict.fromkeys(finite.values()):
        alike, part = [metric for metric in metrics if finite[metric] == known], points.loc[list(known)]
        mean: Any = part.groupby(["arch", targets(part)])[["l0", *alike]].mean().sort_values("l0", kind="stable")
        for arch, curve in mean.groupby(level="arch"):
            none = [math.nan] * len(curve)
            for metric in alike:
                found[metric].append({"arch": arch, "l0": curve["l0"], "mean": curve[metric], "low": none, "high": none})
    return found


def _short(values: Iterable) -> list[int | float | None]:
    """Five significant digits, for drawing; null where there is no number."""
    numbers = [float(f"{value:.5g}") if value is not None and math.isfinite(value) else None for value in values]
    return [int(n) if n is not None and n == int(n) else n for n in numbers]


def _config(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """`same`: the keys whose value all SAEs share; `own`: the other keys, with a value per SAE."""
    keys = dict.fromkeys(key for config in configs for key in config)
    texts = {key: [_text(config[key]) if key in config else None for config in configs] for key in keys}
    same = {key: values[0] for key, values in texts.items() if len(set(values)) == 1}
    return {"same": same, "own": {key: values for key, values in texts.items() if key not in same}}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _detail(detail: Details) -> dict[str, Any]:
    made: dict[str, Any] = {"command": detail.command, "reason": detail.reason}
    if len(detail.curve):
        kept = detail.curve.iloc[np.unique(np.linspace(0, len(detail.curve) - 1, MAX_ROWS).round().astype(int))]
        made["curve"] = {key: _short(kept[key]) for key in ("tokens", "l0", "fvu") if key in kept}
    if detail.rates is not None:
        _, counts, never, rare, few = histogram(detail.rates, detail.counted)
        made["rates"] = {"counts": counts.tolist(), "never": never, "rare": rare, "few": few, "latents": len(detail.rates),
                         "tokens": detail.counted}
    if detail.parts:
        made["parts"] = [{key: tables.cell(key, value) for key, value in part.items()} for part in detail.parts]
    if detail.wandb and detail.wandb.startswith(("https://", "http://")):  # not javascript:
        made["wandb"] = detail.wandb
    if detail.latents:
        made["latents"] = quote(detail.latents)
    return made
