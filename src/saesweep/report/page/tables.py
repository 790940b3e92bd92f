"""HTML of the page that does not depend on the comparison: the number of SAEs, those without results, the table of all.

Elements with data-model, -site, -layer, -arch, -other or -metric are hidden by page.js while that is not selected.
"""

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

INTEGERS = {"layer", "sparsity", "seed", "d_in", "d_sae", "tokens", "unique_tokens", "sinks"}
FIRST = ["arch", "sparsity", "seed"]  # columns of the table: they name the row
Place = tuple[str, str, int]  # a hook point: model, site, layer


def title(place: Place, places: Iterable[Place]) -> str:
    """Names the model only if there are several."""
    model, site, layer = place
    several = len({name for name, _, _ in places}) > 1
    return f"{model}, {site}, layer {layer}" if several else f"{site}, layer {layer}"


def count(df: pd.DataFrame) -> str:
    states = df["state"].tolist()
    parts = [f"{states.count(state)} {state}" for state in ("finished", "failed", "unfinished") if state in states]
    return f"{len(df)} SAE{'s' * (len(df) != 1)}: {', '.join(parts)}" if len(df) else "No SAEs yet"


def without_results(df: pd.DataFrame, reasons: list[str | None]) -> str:
    """The SAEs without numbers, with the reason or their progress; empty if all have numbers."""
    rows = [_without_results(i, row, reasons[i]) for i, row in enumerate(df.to_dict("records"))
            if row["state"] != "finished" or not math.isfinite(row["l0"] + row["fvu"])]
    if not rows:
        return ""
    head = '<th scope="col">SAE</th><th scope="col">state</th><th scope="col" class="reason">reason or progress</th>'
    words = (
        "The same command retries failed SAEs and resumes unfinished ones. The panels mark them under the curves at their "
        "target L0, or at the left if their coefficient is fixed."
    )
    found = scrolling("SAEs without numbers", head, "".join(rows))
    return f"<section><h2>Failed and unfinished</h2><p>{words}</p>{found}</section>"


def _without_results(i: int, row: Mapping[str, Any], reason: str | None) -> str:
    states = {
        "failed": ("failed", (reason or "").strip().partition("\n")[0] or "no reason was recorded"),
        "unfinished": ("unfinished", f"{row['tokens']:,.0f} tokens" if row["tokens"] == row["tokens"] else "not started"),
        "finished": ("no number", "its l0 or fvu is not a number"),
    }
    state, known = states[row["state"]]
    cells = f'<th scope="row">{_link(i, row["path"])}</th><td>{state}</td><td class="reason">{escape(known)}</td>'
    return f"<tr {_row_attributes(row)}>{cells}</tr>"


def table(df: pd.DataFrame) -> str:
    """One row per SAE; without unique_tokens if no SAE was trained on a token twice."""
    repeated = bool((df["unique_tokens"] < df["tokens"]).to_numpy().any())
    columns = [*FIRST, *(key for key in df.columns if key not in FIRST and (repeated or key != "unique_tokens"))]
    head = "".join(f'<th scope="col">{key}</th>' for key in columns)
    rows = [_row(i, {key: row[key] for key in columns}) for i, row in enumerate(df.to_dict("records"))]
    return scrolling("One row per SAE", head, "".join(rows))


def _row(i: int, row: Mapping[str, Any]) -> str:
    cells = {key: f"<td>{cell(key, value)}</td>" for key, value in row.items()}
    cells["arch"] = f'<th scope="row">{_link(i, row["arch"])}</th>'
    cells["path"] = f'<td><a href="{escape(quote(row["path"]))}/">{escape(row["path"])}</a></td>'
    return f'<tr id="sae-{i}" {_row_attributes(row)}>{"".join(cells.values())}</tr>'


def _row_attributes(row: Mapping[str, Any]) -> str:
    return f'{data_attributes((row["model"], row["site"], row["layer"]))} data-arch="{escape(row["arch"])}"'


def _link(i: int, text: str) -> str:
    """To the row of the table; the script opens the dialog instead."""
    return f'<a href="#sae-{i}" data-sae="{i}">{escape(text)}</a>'


def data_attributes(place: Place) -> str:
    return " ".join(f'data-{key}="{escape(str(value))}"' for key, value in zip(("model", "site", "layer"), place, strict=True))


def scrolling(caption: str, head: str, body: str) -> str:
    """A table that scrolls where it is wider than the page."""
    inner = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">{inner}</div>'


def cell(key: str, value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return escape(value)
    return f"{value:.15g}" if key in INTEGERS or math.isinf(value) else f"{value:#.4g}"
