"""The summary of ablations as aligned text, a block per curve and target L0."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from saesweep.storage import curves
from saesweep.study.ablation.latents import NONE
from saesweep.study.ablation.results import MEASURES, SHARES
from saesweep.study.ablation.summary import GROUP

WIDTHS = (33, 53, 39)  # of the name, the shares, and each measure


def text(summary: pd.DataFrame) -> str:
    """Differences are to the SAE without ablation; brackets are 95% intervals over documents, and over seeds where there are
    several."""
    lines = list[str]()
    for _, mine in summary.groupby([key for key in GROUP if key in summary], sort=False, dropna=False):
        rows = [{str(key): value for key, value in row.items()} for row in mine.to_dict("records")]
        first = rows[0]
        seeds = f"{first['seeds']} seeds" if first["seeds"] > 1 else "one seed"
        place = f"{first['model']} {first['site']}.{first['layer']}"
        curve = curves.name(first["arch"], first.get(curves.VARIANT, ""))
        fixed = f", coefficient {coefficient:g}" if (coefficient := first.get("coefficient")) and coefficient > 0 else ""
        lines += ["", f"{place}, {curve} {first['sparsity']:g}{fixed}, {seeds}", *map(_line, rows)]
    return "\n".join(lines[1:])


def _line(row: Mapping[str, Any]) -> str:
    name = row["ablated"] if row["ablated"] == NONE else f"{row['ablated']} = {row['set_to']}"
    known = row["ablated"] != NONE and row["latents"] == row["latents"]  # a difference of two ablations has no shares
    parts = [f"{row[key]:.1%} of {key.rpartition('_')[2]}" for key in SHARES[1:]] if known else []
    cells = [name, ", ".join(parts), *(_measured(row, key) for key in MEASURES if f"{key}_difference" in row)]
    widths = (*WIDTHS, WIDTHS[-1])
    return "  " + "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)).rstrip()


def _measured(row: Mapping[str, Any], key: str) -> str:
    if row["ablated"] == NONE:
        return f"{key} {row[key]:.4f}"
    if pd.isna(row[f"{key}_difference"]):
        return ""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    ends = f" [{low:+.4f}, {high:+.4f}]" if pd.notna(low) else ""
    return f"{key} {row[f'{key}_difference']:+.4f}{ends}"
