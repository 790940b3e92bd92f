"""Ratings read back: any number of files of answers, joined with the key.

A rater's answer to an item may stand in several files, such as one that was saved twice. The latest counts; where the files
end in different answers, that is a conflict, which is reported.
"""
from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from saesweep.errors import UsageError
from saesweep.study.people import answers
from saesweep.study.people.answers import Entry
from saesweep.study.people.draw import Source
from saesweep.study.people.session import Given, Session, read_key


class Rating(NamedTuple):
    """One answer, a row of ratings.csv."""

    rater: str
    item: str  # blind name
    path: str  # of the SAE, or of the SAE that the control is like
    control: str  # empty for a latent of an SAE
    arch: str
    latent: int
    answer: str  # yes, maybe, no, skip
    explanation: str
    seconds: float
    common: bool
    repeated: bool

    @property
    def of(self) -> tuple[str, str, int]:
        return self.path, self.control, self.latent


@dataclass(frozen=True)
class Ratings:
    """One rating per rater and item that was answered, in the order of the key."""

    rows: list[Rating]
    conflicts: list[str]  # a sentence each
    open: dict[str, int]  # items that a rater has not answered yet

    def without(self, sources: Collection[Source]) -> Ratings:
        """Those about other SAEs and controls."""
        return replace(self, rows=[row for row in self.rows if Source(row.path, row.control or None) not in sources])


def read(session: Session, files: Iterable[Path] = ()) -> Ratings:
    """All answers in the session's folder and in `files`. Raises UsageError for a file of another study, or of none."""
    key = {(given.rater, given.name): given for given in read_key(session)}
    kept = [path for ending in ("jsonl", "json") for path in sorted(session.answers.glob(f"*.{ending}"))]
    found: dict[tuple[str, str], dict[Path, Entry]] = {}
    for path in dict.fromkeys([*kept, *files]):
        for rater, entries in _content(path, session).items():
            names = {name for owner, name in key if owner == rater}
            for name, entry in answers.latest([_checked(path, entry, names) for entry in entries]).items():
                found.setdefault((rater, name), {})[path] = entry
    last = {which: max(several.values(), key=lambda entry: entry["at"]) for which, several in found.items()}
    rows = [_row(given, last[which]) for which, given in key.items() if which in last and last[which]["answer"]]
    answered = {(row.rater, row.item) for row in rows}
    waiting = {rater: sum(owner == rater and (owner, name) not in answered for owner, name in key) for rater in session.raters}
    conflicts = [text for which in key if (text := _conflict(key[which], found.get(which, {}), last.get(which)))]
    return Ratings(rows, conflicts, waiting)


def _content(path: Path, session: Session) -> dict[str, list[Entry]]:
    try:
        parts = answers.lines(path) if path.suffix == ".jsonl" else [json.loads(path.read_text(encoding="utf-8"))]
        each = [(part["study"], part["rater"], [part] if path.suffix == ".jsonl" else part["answers"]) for part in parts]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a file of ratings ({error!r}); it is what the page saves as ratings_RATER_STUDY.json"
                         ) from error
    found: dict[str, list[Entry]] = {}
    for study, rater, entries in each:
        if study != session.study:
            raise UsageError(f"{path} belongs to study {study}, and {session.folder} is study {session.study}: "
                             "take the file away, or report on the study that it belongs to")
        if rater not in session.raters:
            raise UsageError(f"{path}: {session.folder} has no rater {rater}; there are {', '.join(session.raters)}")
        found.setdefault(rater, []).extend(entries)
    return found


def _checked(path: Path, entry: Any, names: set[str]) -> Entry:
    try:
        return answers.checked(entry, names)
    except ValueError as error:
        raise UsageError(f"{path}: {error}; the file was changed by hand, or the key of the study was") from error


def _row(given: Given, entry: Entry) -> Rating:
    item = given.item
    return Rating(given.rater, given.name, item.source.path, item.source.control or "", given.arch, item.latent,
                  entry["answer"], entry["explanation"].strip(), entry["seconds"], item.common, item.repeated)


def _conflict(given: Given, several: Mapping[Path, Entry], last: Entry | None) -> str:
    """Empty where the files agree."""
    said = {path: entry["answer"] or "nothing" for path, entry in several.items()}
    if last is None or len(set(said.values())) < 2:
        return ""
    words = ", ".join(f"{answer} in {path.name}" for path, answer in said.items())
    which = f"{given.rater}, latent {given.item.latent} of {given.item.source.label}"
    return f"{which}: {words}; {last['answer'] or 'nothing'} is the latest and counts."
