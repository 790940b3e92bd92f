"""The answers that raters have given: appended line by line by the server, or saved by the page as a file.

An entry is {item, answer, explanation, seconds, at}. answer: yes, maybe, no, skip, or null where it was taken back.
at: milliseconds since 1970, by the rater's clock.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

ANSWERS = ("yes", "maybe", "no", "skip")
REQUIRED = ("yes", "skip")  # need an explanation
LONGEST = 300  # characters of an explanation, as in rate.html
Entry = dict[str, Any]


def checked(entry: Any, items: Collection[str]) -> Entry:
    """The known fields of an entry. Raises ValueError, which names the item, where one is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("item"), str) or entry["item"] not in items:
        raise ValueError(f"item {entry.get('item') if isinstance(entry, dict) else entry!r} was not given to this rater")
    answer, explanation = entry.get("answer"), entry.get("explanation", "")
    if answer is not None and answer not in ANSWERS:
        raise ValueError(f"item {entry['item']}: answer {answer!r} is none of {', '.join(ANSWERS)}")
    if not isinstance(explanation, str) or len(explanation) > LONGEST:
        raise ValueError(f"item {entry['item']}: the explanation is no text of at most {LONGEST} characters")
    if answer in REQUIRED and not explanation.strip():
        raise ValueError(f"item {entry['item']}: {answer} needs an explanation")
    for key in ("seconds", "at"):
        number = entry.get(key)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
            raise ValueError(f"item {entry['item']}: {key} is no number")
    before = {"before": entry["before"]} if answer is None and entry.get("before") in ANSWERS else {}
    return {key: entry.get(key, "") for key in ("item", "answer", "explanation", "seconds", "at")} | before


def append(file: Path, study: str, rater: str, entry: Entry) -> None:
    """One line, on the disk when this returns."""
    line = json.dumps({"study": study, "rater": rater, **entry}, ensure_ascii=False) + "\n"
    with file.open("ab") as out:
        if out.tell() and not _ends_a_line(file):
            out.write(b"\n")  # after a line that was cut off
        out.write(line.encode())
        out.flush()
        os.fsync(out.fileno())


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, os.SEEK_END)
        return content.read(1) == b"\n"


def lines(file: Path) -> list[Entry]:
    """Those of a server's file, without one that was cut off."""
    found = []
    for line in file.read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def latest(entries: list[Entry]) -> dict[str, Entry]:
    """The last entry of each item, in the order of their times."""
    return {entry["item"]: entry for entry in sorted(entries, key=lambda entry: entry["at"])}
