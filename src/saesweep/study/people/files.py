"""ratings.csv and agreement.json of a study."""
from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.runtime import atomic
from saesweep.study.people.agreed import agreed
from saesweep.study.people.origin import AGREEMENT, RATINGS, Changes, begin_anew, changes
from saesweep.study.people.plan import power
from saesweep.study.people.proportions import Estimate
from saesweep.study.people.read import Rating, Ratings, read
from saesweep.study.people.session import read_session
from saesweep.study.people.settings import RateSettings
from saesweep.study.people.shares import counted, shares, yes_by_latent
from saesweep.study.people.words import sentences

COLUMNS = ("rater", "item", "path", "control", "latent", "answer", "explanation", "seconds", "repeated")


def report(study: Path, files: Iterable[Path], settings: RateSettings, leave_out: bool = False) -> list[str]:
    """Write ratings.csv and agreement.json from all answers of a study, and return the sentences about them.

    study: the folder <sweep>/study. files: saved answers outside of the session's folder. leave_out: the ratings of SAEs that
    were trained again since. Raises UsageError as `read` does, and where an SAE was trained again.
    """
    session = read_session(study)
    changed = changes(study.parent, session.origins)
    if changed.trained and not leave_out:
        raise UsageError(f"{changed} since people rated, so that their answers are about weights that are gone: report on the "
                         f"other SAEs with --leave-out, or {begin_anew(session.folder)}")
    everything = read(session, files)
    ratings = everything.without(changed.trained)
    found = agreement(ratings, settings)
    words = [*_since(changed, len(everything.rows) - len(ratings.rows)), *sentences(ratings, found, settings.delta),
             *power([one["latents"] for one in found["architectures"].values()], settings)]
    content = {"study": session.study, **_plain(found), "conflicts": ratings.conflicts, "open": ratings.open, "words": words}
    atomic.write(study / RATINGS, ratings_csv(ratings.rows))
    atomic.write(study / AGREEMENT, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
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


def _since(changed: Changes, left_out: int) -> list[str]:
    trained, collected = Changes(changed.trained, []), Changes([], changed.collected)
    return [f"{one} since people rated: {what}." for one, what in (
        (trained, f"{left_out} answers are left out"),
        (collected, "they saw excerpts of another text, or another choice of excerpts")) if one]


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
