"""ratings.csv and agreement.json of a study."""
from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.runtime import atomic
from saesweep.study.people.agreed import agreed
from saesweep.study.people.proportions import Estimate
from saesweep.study.people.read import Rating, Ratings, read
from saesweep.study.people.session import read_session
from saesweep.study.people.settings import RateSettings
from saesweep.study.people.shares import counted, shares, yes_by_latent
from saesweep.study.people.words import sentences

RATINGS = "ratings.csv"
COLUMNS = ("rater", "item", "path", "control", "latent", "answer", "explanation", "seconds", "repeated")


def report(study: Path, files: Iterable[Path], settings: RateSettings) -> list[str]:
    """Write ratings.csv and agreement.json from all answers of a study, and return the sentences about them.

    study: the folder <sweep>/study. files: saved answers outside of the session's folder. Raises UsageError as `read` does.
    """
    session = read_session(study)
    ratings = read(session, files)
    found = agreement(ratings, settings)
    words = sentences(ratings, found, settings.delta)
    content = {"study": session.study, **_plain(found), "conflicts": ratings.conflicts, "open": ratings.open, "words": words}
    atomic.write(study / RATINGS, ratings_csv(ratings.rows))
    atomic.write(study / "agreement.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return words


def rated(study: Path) -> dict[tuple[str, str, int], float]:
    """The share of yes of each latent in ratings.csv: path, control (empty of an SAE) and latent; empty without the file."""
    if not (file := study / RATINGS).is_file():
        return {}
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    return yes_by_latent(counted(
        Rating(row["rater"], row["item"], row["path"], row["control"], "", int(row["latent"]), row["answer"],
               row["explanation"], float(row["seconds"]), False, row["repeated"] == "1") for row in rows))


def agreement(ratings: Ratings, settings: RateSettings) -> dict[str, Any]:
    """What agreement.json holds, with nan where there is no number."""
    return shares(ratings.rows, settings) | {"agreement": agreed(ratings.rows, settings)}


def ratings_csv(rows: Sequence[Rating]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([int(value) if isinstance(value, bool) else value for value in (getattr(row, key) for key in COLUMNS)]
                     for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """For JSON: an estimate as its three fields, nan as null."""
    if isinstance(value, Estimate):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
