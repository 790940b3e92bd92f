"""pareto.html: one offline page with the curves of a sweep, which architecture is better, and all there is about each SAE.

The words and tables are HTML and need no script (words.py, better.py). The script draws the curves and shows one
SAE at a time (*.js), from the JSON that is put together here.
"""

import json
import math
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from saesweep.report.page import better, words
from saesweep.report.page.words import Place
from saesweep.report.style import LABELS, RATES, histogram, looks
from saesweep.results.sweep_table import Details, aims

ROWS = 60  # of a training curve, at most
SCRIPTS = ["figures.js", "panels.js", "detail.js", "page.js"]  # the last one starts


def html(df: pd.DataFrame, comparison: dict, details: list[Details], name: str) -> str:
    """The whole page. df: a row per SAE, with its path from the page's folder; comparison: what pareto.json holds."""
    df = df.reset_index(drop=True)
    parts = {
        "name": escape(name),
        "count": words.count(df),
        "answer": better.answer(comparison),
        "better": better.better(comparison),
        "missing": words.missing(df, [d.reason for d in details]),
        "table": words.table(df),
        "css": _file("page.css"),
        "js": "".join(map(_file, SCRIPTS)),
        "data": _json(_data(df, comparison, details)),
    }
    return Template(_file("page.html")).substitute(parts)


def _file(name: str) -> str:
    return files("saesweep.report.page").joinpath(name).read_text(encoding="utf-8")


def _json(data: object) -> str:
    """No `<` at all: nothing in it can end the script element or begin a comment."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _data(df: pd.DataFrame, comparison: dict, details: list[Details]) -> dict[str, Any]:
    archs = looks(df["arch"])
    places = sorted(set(_keys(df)))
    metrics = [key for key in LABELS if key != "l0" and np.isfinite(df[key].astype(float)).any()] or ["fvu"]
    of = {place: i for i, place in enumerate(places)}
    return {
        "words": {key: LABELS[key] for key in ["l0", *metrics]},
        "metrics": metrics,
        "archs": [[arch, *look] for arch, look in archs.items()],
        "places": [[*map(str, place), words.title(place, places)] for place in places],
        "saes": {
            "place": [of[place] for place in _keys(df)],
            "arch": [list(archs).index(arch) for arch in df["arch"]],
            "state": df["state"].tolist(),
            "aim": aims(df).tolist(),
            **{key: _short(df[key]) for key in ["sparsity", "seed", "l0", *metrics]},
        },
        "lines": {metric: _lines(df, comparison, metric, places) for metric in metrics},
        "edges": [round(edge, 1) for edge in RATES.tolist()],
        "config": _config([d.config for d in details]),
        "details": [_detail(d) for d in details],
    }


def _keys(df: pd.DataFrame) -> list[Place]:
    return list(zip(df["model"], df["site"], df["layer"].tolist(), strict=True))


def _lines(df: pd.DataFrame, comparison: dict, metric: str, places: list[Place]) -> list[list[dict[str, Any]]]:
    """Per place its curves: those of the comparison with their bands, or the means over seeds where it has none."""
    compared = {(p["model"], p["site"], p["layer"]): p["metrics"].get(metric) for p in comparison["places"]}
    keys = _keys(df)

    def curves(place: Place) -> list[dict[str, Any]]:
        return (compared.get(place) or {"curves": _means(df[[key == place for key in keys]], metric)})["curves"]

    return [[_line(curve) for curve in curves(place)] for place in places]


def _line(curve: dict[str, Any]) -> dict[str, Any]:
    order = np.argsort(np.array(curve["l0"], float), kind="stable")
    return {"arch": curve["arch"], **{key: _short(np.array(curve[key], float)[order]) for key in ("l0", "mean", "low", "high")}}


def _means(points: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    points = points[np.isfinite(points["l0"].astype(float)) & np.isfinite(points[metric].astype(float))]
    means = [(arch, part.groupby(aims(part))[["l0", metric]].mean()) for arch, part in points.groupby("arch")]
    none = [math.nan]
    return [{"arch": a, "l0": m["l0"], "mean": m[metric], "low": none * len(m), "high": none * len(m)} for a, m in means]


def _short(values: Iterable) -> list[int | float | None]:
    """Five significant digits, enough to draw; null where there is no number."""
    numbers = [float(f"{value:.5g}") if value is not None and math.isfinite(value) else None for value in values]
    return [int(n) if n is not None and n == int(n) else n for n in numbers]


def _config(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """What all SAEs share is written once; `own`: per key the value of each SAE."""
    keys = dict.fromkeys(key for config in configs for key in config)
    texts = {key: [_text(config[key]) if key in config else None for config in configs] for key in keys}
    same = {key: values[0] for key, values in texts.items() if len(set(values)) == 1}
    return {"same": same, "own": {key: values for key, values in texts.items() if key not in same}}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _detail(detail: Details) -> dict[str, Any]:
    made: dict[str, Any] = {"command": detail.command, "reason": detail.reason}
    if len(detail.curve):
        kept = detail.curve.iloc[np.unique(np.linspace(0, len(detail.curve) - 1, ROWS).round().astype(int))]
        made["curve"] = {key: _short(kept[key]) for key in ("tokens", "l0", "fvu") if key in kept}
    if detail.rates is not None:
        _, counts, never = histogram(detail.rates)
        made["rates"] = {"counts": counts.tolist(), "never": int(never), "latents": len(detail.rates)}
    if detail.wandb and detail.wandb.startswith(("https://", "http://")):  # nothing that would run: javascript:
        made["wandb"] = detail.wandb
    return made
