"""The page's words and tables, as HTML: how many SAEs, what is missing, all numbers (better.py: which is better).

Elements with data-model, -site, -layer, -arch, -other or -metric are hidden by page.js where that is not chosen.
"""

import math
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

import numpy as np
import pandas as pd

WHOLE = {"layer", "sparsity", "seed", "d_in", "d_sae", "tokens", "sinks"}
FIRST = ["arch", "sparsity", "seed"]  # of the table: what a row is called
Place = tuple[str, str, int]  # model, site, layer


def title(place: Place, places: Iterable[Place]) -> str:
    """Without the model where there is one."""
    model, site, layer = place
    several = len({name for name, _, _ in places}) > 1
    return f"{model}, {site}, layer {layer}" if several else f"{site}, layer {layer}"


def count(df: pd.DataFrame) -> str:
    states = df["state"].value_counts()
    parts = [f"{states[state]} {state}" for state in ("finished", "failed", "unfinished") if state in states]
    return f"{len(df)} SAE{'s' * (len(df) != 1)}: {', '.join(parts)}" if len(df) else "No SAEs yet"


def missing(df: pd.DataFrame, reasons: list[str | None]) -> str:
    """The SAEs without numbers, with the reason or how far they came; nothing where all have theirs."""
    numbers = np.isfinite(df[["l0", "fvu"]].astype(float)).all(axis=1)
    rows = [_absent(i, row, reasons[i]) for i, row in df.iterrows() if row["state"] != "finished" or not numbers[i]]
    if not rows:
        return ""
    head = '<th scope="col">SAE</th><th scope="col">state</th><th scope="col" class="said">what is known</th>'
    words = (
        "The same command trains a failed one again and an unfinished one to its end. Under the curves they are marked at the "
        "sparsity that was aimed at, or at the left where a coefficient was fixed."
    )
    found = scrolling("SAEs without numbers", head, "".join(rows))
    return f"<section><h2>Failed and unfinished</h2><p>{words}</p>{found}</section>"


def _absent(i: int, row: pd.Series, reason: str | None) -> str:
    states = {
        "failed": ("failed", (reason or "").strip().partition("\n")[0] or "no reason was written"),
        "unfinished": ("unfinished", f"{row['tokens']:,.0f} tokens" if row["tokens"] == row["tokens"] else "not begun"),
        "finished": ("no number", "its l0 or fvu is not a number"),
    }
    state, known = states[row["state"]]
    cells = f'<th scope="row">{_link(i, row["path"])}</th><td>{state}</td><td class="said">{escape(known)}</td>'
    return f"<tr {_of(row)}>{cells}</tr>"


def table(df: pd.DataFrame) -> str:
    columns = [*FIRST, *(key for key in df.columns if key not in FIRST)]
    head = "".join(f'<th scope="col">{key}</th>' for key in columns)
    return scrolling("One row per SAE", head, "".join(_row(i, row[columns]) for i, row in df.iterrows()))


def _row(i: int, row: pd.Series) -> str:
    cells = {key: f"<td>{cell(key, value)}</td>" for key, value in row.items()}
    cells["arch"] = f'<th scope="row">{_link(i, row["arch"])}</th>'
    cells["path"] = f'<td><a href="{escape(quote(row["path"]))}/">{escape(row["path"])}</a></td>'
    return f'<tr id="sae-{i}" {_of(row)}>{"".join(cells.values())}</tr>'


def _of(row: pd.Series) -> str:
    return f'{at((row["model"], row["site"], row["layer"]))} data-arch="{escape(row["arch"])}"'


def _link(i: int, text: str) -> str:
    """To the row of the table; with the script, to all there is about the SAE."""
    return f'<a href="#sae-{i}" data-sae="{i}">{escape(text)}</a>'


def at(place: Place) -> str:
    return " ".join(f'data-{key}="{escape(str(value))}"' for key, value in zip(("model", "site", "layer"), place, strict=True))


def scrolling(caption: str, head: str, body: str) -> str:
    """A table that scrolls within itself where it is wider than the page."""
    inner = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">{inner}</div>'


def cell(key: str, value: object) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return escape(value)
    return f"{value:.15g}" if key in WHOLE or math.isinf(value) else f"{value:#.4g}"
