"""The comparison in a line per question and score, for the console and the head of each answer on the page.

The line is of the mean over log L0 where there is one, else of each L0; sentences.py has every comparison.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saesweep.report.wording import join_words, l0s, sentence
from saesweep.study.comparison import sentences
from saesweep.study.comparison.sentences import Changes, amount, change, correlation, names, number, over, title

Row = Mapping[str, Any]
PHRASES = {"better": "better than", "higher": "higher than", "equal": "equal within {delta:g} to",
           "open": "not told apart from", "none": "without an interval against"}
CHANGES: Changes = {
    "frequent": ("higher by {}", "lower by {}", "no difference shown ({})"),
    "per_tenfold": ("rises by {}", "falls by {}", "no slope shown ({})"),
    "per_doubling": ("rises by {}", "falls by {}", "no slope shown ({})"),
}
UNITS = {"frequent": "", "per_tenfold": " per tenfold frequency", "per_doubling": " per doubling of L0"}


def lines(report: Mapping[str, Any]) -> list[str]:
    """For the console."""
    found = []
    for place in report["places"]:
        found.append(f"{place['model']} {place['site']}.{place['layer']}")
        for question, answers in place_answers(report, place).items():
            found += [f"  {question}", *(f"    {answer}" for answer in answers)]
    return [*found, *sentences.scope(report)] if found else []


def place_answers(report: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, list[str]]:
    """By question, as sentences.place_answers."""
    blocks, frequency = sentences.shown(place), sentences.shown_frequency(place)
    found = {
        sentences.WHICH: [_which(block, report["delta"]) for block in blocks if block["gaps"]],
        sentences.FREQUENT: list(_of_frequency(frequency, "frequent")),
        sentences.FREQUENCY: list(_of_frequency(frequency, "per_tenfold")),
        sentences.L0: [_changes(title(block), block["per_doubling"], "per_doubling") for block in blocks
                       if block["per_doubling"]],
        sentences.CONTROLS: [_controls(block) for block in blocks if block["controls"]],
        sentences.USE: list(_use(place["use"])),
    }
    return {question: answers for question, answers in found.items() if answers}


def _which(block: Row, delta: float) -> str:
    pairs = {(row["a"], row["b"]) for row in block["means"]}
    single = [row for row in block["gaps"] if (row["a"], row["b"]) not in pairs]
    everywhere = {tuple(row["over_l0"]) for row in block["means"]}
    alike = len(everywhere) == 1 and not single
    parts = [_verdict(row, delta, "" if alike else f" in the mean over L0 {l0s(row['over_l0'])}") for row in block["means"]]
    parts += [_verdict(row, delta, f" at L0 {row['sparsity']:g}") for row in single]
    where = f", over L0 {l0s(next(iter(everywhere)))}" if alike else ""
    known = [row["verdict"] for row in block["gaps"] if row["verdict"] != "none"]
    if block["means"] and (count := sum(verdict not in ("open", "equal") for verdict in known)):
        parts.append(f"at single L0, {count} of {len(known)} intervals exclude 0")
    return f"{title(block)}{where}: {'; '.join(parts)}{over([*block['means'], *single])}."


def _verdict(row: Row, delta: float, where: str) -> str:
    a, verdict, b = names(row)
    return f"{a} {PHRASES[verdict].format(delta=delta)} {b}{where} {amount(row, delta)}"


def _of_frequency(rows: Sequence[Row], key: str) -> Iterator[str]:
    """A line per score."""
    for words in dict.fromkeys(row["words"] for row in rows):
        mine = [row[key] | {"arch": row["arch"]} for row in rows if row["words"] == words and key in row]
        if mine:
            yield _changes(words, mine, key)


def _changes(what: str, rows: Sequence[Row], key: str) -> str:
    return f"{what}{UNITS[key]}: {'; '.join(change(row, key, CHANGES) for row in rows)}{over(rows)}."


def _controls(block: Row) -> str:
    """How many are above their control, the closest of them, and all others."""
    rows = block["controls"]
    above = [row for row in rows if row["low"] is not None and row["low"] > 0]
    parts = []
    if above:
        least = min(above, key=lambda row: row["estimate"])
        count = "all" if len(above) == len(rows) else f"{len(above)} of {len(rows)}"
        parts.append(f"{count} above their control, the closest by {number(least)} ({_over_control(least)})")
    others: dict[str, list[str]] = {}
    for row in (row for row in rows if row not in above):
        words = "no interval" if row["low"] is None else "below it" if row["high"] < 0 else "no difference shown"
        others.setdefault(words, []).append(f"{number(row)} ({_over_control(row)})")
    parts += [f"{words}: {', '.join(each)}" for words, each in others.items()]
    return f"{title(block)}: {'; '.join(parts)}{over(rows)}."


def _over_control(row: Row) -> str:
    return f"{sentences.whose(row)} over {row['control']}"


def _use(rows: Sequence[Row]) -> Iterator[str]:
    """One line: the scores that go with FVU, then the names of the others."""
    known = [row for row in rows if _goes(row, "") or _goes(row, "at_equal_l0_")]
    parts = [f"{sentence(row['words']).removesuffix('.')}: {'; '.join(correlation(row))}" for row in known]
    if others := [row["words"] for row in rows if row not in known]:
        parts.append(f"No correlation is shown with {join_words(others)}")
    if parts:
        yield f"{sentences.points(rows)}. {'. '.join(parts)}."


def _goes(row: Row, prefix: str) -> bool:
    return f"{prefix}r" in row and not row[f"{prefix}low"] <= 0 <= row[f"{prefix}high"]
