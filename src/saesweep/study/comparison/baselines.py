"""Which control each SAE is compared with.

A control is like all SAEs of its sweep at a hook point that have the same target L0 and read the same text, whatever else is
different; `random` has their width too. It is listed with the first of them, whose path it has. Another sweep has controls of
its own: its language model may have other weights, and its text may be another.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd


def beside(saes: pd.DataFrame, texts: Sequence[int]) -> list[dict[str, int]]:
    """Of each row the row of each of its controls by name; empty of a control. saes, texts: of Study."""
    own, alike = dict[tuple[object, ...], int](), dict[tuple[object, ...], int]()
    rows = list(zip(saes.index.tolist(), saes.assign(text=texts).to_dict("records"), strict=True))
    controls = [(i, row) for i, row in rows if row["control"] is not None]
    for i, row in controls:
        own[row["control"], row["path"]] = i
        alike.setdefault(_like(row, row["control"]), i)
    names = list(dict.fromkeys(row["control"] for _, row in controls))
    found = []
    for _, row in rows:
        each = {name: own.get((name, row["path"]), alike.get(_like(row, name))) for name in names}
        found.append({name: i for name, i in each.items() if i is not None} if row["control"] is None else {})
    return found


def _like(row: Mapping[Any, Any], control: str) -> tuple[object, ...]:
    sparsity, l0 = float(str(row["sparsity"])), float(str(row["l0"]))
    target = max(1, round(l0)) if math.isnan(sparsity) else sparsity
    place = PurePosixPath(str(row["path"])).parents[1]  # <sweep>/<model>/<hook point>
    return (control, place, target, row["text"], str(row.get("d_sae")) if control == "random" else None)
