"""The report: a JSON file per section while they run, and from these report.md and report.json, each written whole."""
from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saesweep.runtime import atomic

GRACE = 20.0  # seconds beyond its time after which a section that does not end is killed
Found = dict[str, Any]  # name, title, status, seconds, tables {title: rows}, notes, traceback, began, until


def read(folder: Path, names: Sequence[str]) -> list[Found]:
    """The results of the sections that have begun."""
    return [json.loads(file.read_text()) for name in names if (file := folder / f"{name}.json").is_file()]


def save(folder: Path, found: Found) -> None:
    atomic.write(folder / f"{found['name']}.json", json.dumps(found))


def stopped(folder: Path, name: str, why: str, status: str = "stopped") -> None:
    """Note of a section that it did not end, or did not begin."""
    now = time.time()
    empty = {"name": name, "title": "", "tables": {}, "notes": [], "traceback": "", "began": now, "until": now}
    found = next(iter(read(folder, [name])), empty)
    save(folder, found | {"status": status, "notes": [*found["notes"], why], "seconds": now - found["began"]})


def overdue(folder: Path, names: Sequence[str]) -> float:
    """When to kill the section that is running."""
    return max((found["until"] + GRACE for found in read(folder, names) if found["status"] == "running"), default=math.inf)


def write(folder: Path, names: Sequence[str], out: Path) -> list[Found]:
    """The two files, where something has changed since they were written; returns the results so far."""
    found, file = read(folder, names), out / "report.json"
    text = json.dumps(found, indent=1)
    if not file.is_file() or file.read_text() != text:
        atomic.write(out / "report.md", "\n".join(line for section in found for line in _section(section)))
        atomic.write(file, text)
    return found


def _section(found: Found) -> list[str]:
    lines = [f"## {found['name']}: {found['title']}", "", f"{found['status']}, {found['seconds']:.0f} s", ""]
    for title, rows in found["tables"].items():
        lines += [f"**{title}**", "", *table(rows), ""]
    lines += [f"- {note}" for note in found["notes"]]
    trace = ["", "```", found["traceback"].rstrip(), "```"] if found["traceback"] else []
    return [*lines, *trace, ""]


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown; a row may lack columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([shown(row.get(name)) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def shown(value: Any) -> str:
    """Three digits of a number, and no line breaks or bars in a text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if 100 <= abs(value) < math.inf else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "/").replace("\n", " ")
