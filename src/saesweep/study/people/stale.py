"""The figures of a rating session whose study was made again: they are put where nobody takes them for those of the study."""
from __future__ import annotations

from pathlib import Path

from saesweep.study.people.origin import begin_anew, changes, known_origins

FIGURES = ("ratings.csv", "agreement.json")


def set_aside(study: Path) -> list[str]:
    """Move the figures of <sweep>/study into the session's folder where what was rated has changed, and say so.

    Nothing is removed or replaced. Returns no sentence where there is no session, or where it is that of the study.
    """
    found, folder = changes(study.parent, known_origins(study)), study / "rate"
    if not found:
        return []
    moved = [name for name in FIGURES if (study / name).is_file()]
    for name in moved:
        (study / name).rename(_free(folder / name))
    where = f"; {' and '.join(moved)} of these ratings went into {folder}" * bool(moved)
    return [f"{found} since people got latents to rate{where}. All answers are kept. To rate what is there now, "
            f"{begin_anew(folder)}."]


def _free(file: Path) -> Path:
    """A name that no file has: `ratings.csv`, `ratings.2.csv`, ..."""
    numbered = (file.with_name(f"{file.stem}.{n}{file.suffix}") for n in range(2, 10_000))
    return file if not file.exists() else next(other for other in numbered if not other.exists())
