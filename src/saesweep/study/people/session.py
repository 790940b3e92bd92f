"""The folder of a rating session, <sweep>/study/rate/: who rates, and the key to the blind names.

    session.json      the study's name, the raters in order, the settings of the draw, what was drawn from (origin.py)
    secret            from which the names are made; readable by its owner alone
    key.csv           which latent is behind each name; not for raters
    rate_<rater>.html the offline pages
    answers/          <rater>.jsonl, what the server has received; ratings_*.json, what raters have sent back
"""
from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from saesweep.errors import UsageError
from saesweep.runtime import atomic, program
from saesweep.study.people.draw import Item, Source, blind, study_id
from saesweep.study.people.origin import SESSION, Origin, begin_anew, changes
from saesweep.study.people.settings import PER_SESSION, RateSettings

RATER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
KEY = ("rater", "item", "path", "control", "arch", "latent", "common", "repeated")


@dataclass(frozen=True)
class Session:
    folder: Path
    secret: bytes
    raters: tuple[str, ...]  # in order of their numbers
    origins: tuple[Origin, ...] = ()  # of the SAEs and controls whose latents are drawn

    @property
    def study(self) -> str:
        return study_id(self.secret)

    @property
    def answers(self) -> Path:
        return self.folder / "answers"


@dataclass(frozen=True)
class Given:
    """An item with who got it, a row of key.csv."""

    rater: str
    name: str  # blind
    item: Item
    arch: str


def open_session(
    study: Path, raters: Sequence[str], settings: RateSettings, origins: Sequence[Origin] = (),
    limits: Mapping[str, int] = MappingProxyType({}),
) -> Session:
    """The session of a study, with these raters added.

    origins: what is there now. limits: on which latents are eligible. Raises UsageError where the session was begun with
    other settings, and where what it was drawn from has changed.
    """
    for rater in raters:
        if not re.fullmatch(RATER, rater):
            raise UsageError(f"--raters {rater}: a name has up to 40 letters, digits, - and _, as it is part of a file's name")
    folder, drawn = study / "rate", {f"rate.{key}": getattr(settings, key) for key in PER_SESSION} | dict(limits)
    if not (folder / SESSION).is_file():
        _begin(folder)
    known = _session(folder)
    before = known.get("settings", drawn)
    if changed := [f"{key}={value}" for key, value in drawn.items() if before.get(key) != value]:
        raise UsageError(f"{', '.join(changed)}: {folder} was begun with other settings, and its raters have their latents; "
                         "take those back, or move the folder away to begin anew")
    first = known.get("origins", [one._asdict() for one in origins])
    if found := changes(study.parent, [Origin(**one) for one in first]):
        raise UsageError(f"{found} since raters got their latents: put back what was there, or {begin_anew(folder)}")
    everybody = list(dict.fromkeys([*known.get("raters", []), *raters]))
    content = {"study": study_id(_secret(folder)), "raters": everybody, "settings": drawn, "origins": first}
    atomic.write(folder / SESSION, json.dumps(content, indent=1) + "\n")
    return read_session(study)


def read_session(study: Path) -> Session:
    """Raises UsageError where there is none."""
    folder = study / "rate"
    if not (folder / SESSION).is_file():
        raise UsageError(f"{folder}: nobody has been asked to rate; begin with {program.called('rate')} {study.parent} "
                         "--raters NAME,NAME")
    known = _session(folder)
    return Session(folder, _secret(folder), tuple(known["raters"]), tuple(Origin(**one) for one in known.get("origins", [])))


def _begin(folder: Path) -> None:
    (folder / "answers").mkdir(parents=True, exist_ok=True)
    if not (folder / "secret").exists():
        with os.fdopen(os.open(folder / "secret", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    atomic.write(folder / SESSION, "{}")


def _session(folder: Path) -> dict[str, Any]:
    return json.loads((folder / SESSION).read_text())


def _secret(folder: Path) -> bytes:
    try:
        return bytes.fromhex((folder / "secret").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / 'secret'} is not readable ({error}): without it no rating can be told to its latent; "
                         "give it back, or move the folder away to begin anew") from error


def write_key(session: Session, drawn: Mapping[str, Sequence[Item]], archs: Mapping[str, str]) -> None:
    """key.csv. drawn: the items of each rater. archs: the architecture of each SAE by its path."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(KEY)
    for rater, items in drawn.items():
        for item in items:
            source = item.source
            rows.writerow([rater, blind(session.secret, item), source.path, source.control or "", archs[source.path],
                           item.latent, int(item.common), int(item.repeated)])
    atomic.write(session.folder / "key.csv", text.getvalue())


def read_key(session: Session) -> list[Given]:
    """Its rows; none where nobody has a latent yet."""
    if not (session.folder / "key.csv").is_file():
        return []
    with (session.folder / "key.csv").open(newline="") as file:
        return [_given(row) for row in csv.DictReader(file)]


def _given(row: Mapping[str, str]) -> Given:
    source = Source(row["path"], row["control"] or None)
    item = Item(source, int(row["latent"]), row["common"] == "1", row["repeated"] == "1")
    return Given(row["rater"], row["item"], item, row["arch"])
