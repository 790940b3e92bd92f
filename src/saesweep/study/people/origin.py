"""What the latents of a rating session were drawn from, and whether it is still there.

session.json keeps of each SAE, and of its control, the digests of the weights and of the text, and the settings with which it
was collected. An SAE that was trained again is not the one that people rated. One that was only collected again is, though
its raters saw excerpts that are not those of the study any more.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from saesweep.runtime import program
from saesweep.runtime.digests import sha256
from saesweep.storage import files
from saesweep.study import arrays
from saesweep.study.people.draw import Source

SESSION = "session.json"
RATINGS, AGREEMENT = "ratings.csv", "agreement.json"  # the figures, in <sweep>/study
RECORDED = ("weights", "text", "settings")  # of the metadata of a file of hits, study/record.py


class Origin(NamedTuple):
    """One SAE or control, as it was when raters got its latents."""

    path: str
    control: str | None
    file: str  # with its activations, relative to the sweep
    weights: str
    text: str
    settings: str

    @property
    def source(self) -> Source:
        return Source(self.path, self.control)


class Changes(NamedTuple):
    """What is not as it was; of what has been taken away, nothing is known."""

    trained: list[Source]  # trained again; of a control, the SAE that it is like was
    collected: list[Source]  # the same SAE, collected from another text or with other settings

    def __bool__(self) -> bool:
        return bool(self.trained or self.collected)

    def __str__(self) -> str:
        """`a/topk/64 was trained again`"""
        return f"{_were(self.trained)} trained again" if self.trained else f"{_were(self.collected)} collected again"


def origin(sweep: Path, source: Source, file: Path) -> Origin:
    """file: the activations of an SAE or control of the sweep."""
    there = arrays.metadata(file)
    return Origin(*source, file.relative_to(sweep).as_posix(), *(there[key] for key in RECORDED))


def known_origins(study: Path) -> list[Origin]:
    """Of the session of <sweep>/study; none where there is no session."""
    file = study / "rate" / SESSION
    return [Origin(**one) for one in json.loads(file.read_text()).get("origins", [])] if file.is_file() else []


def changes(sweep: Path, origins: Sequence[Origin]) -> Changes:
    trained, collected = [], []
    for one in origins:
        file, weights = sweep / one.file, sweep / one.path / files.WEIGHTS
        there = origin(sweep, one.source, file) if file.is_file() else one
        retrained = one.control is None and weights.is_file() and sha256(weights) != one.weights
        if retrained or there.weights != one.weights:
            trained.append(one.source)
        elif there != one:
            collected.append(one.source)
    return Changes(trained, collected)


def _were(sources: Sequence[Source]) -> str:
    first = sources[0].label
    return f"{first} was" if len(sources) == 1 else f"{len(sources)} SAEs and controls, such as {first}, were"


def begin_anew(folder: Path) -> str:
    """folder: of the session."""
    command = f"{program.called('rate')} {folder.parents[1]} --raters NAME,NAME"
    return f"move {folder} away, which keeps all answers, and begin anew with {command}"


def set_aside(study: Path) -> list[str]:
    """Move the figures of <sweep>/study into the session's folder where what was rated has changed, and say so.

    Nothing is removed or replaced. Returns no sentence where there is no session, or where it is that of the study.
    """
    found, folder = changes(study.parent, known_origins(study)), study / "rate"
    if not found:
        return []
    moved = [name for name in (RATINGS, AGREEMENT) if (study / name).is_file()]
    for name in moved:
        (study / name).rename(_free(folder / name))
    where = f"; {' and '.join(moved)} of these ratings went into {folder}" * bool(moved)
    return [f"{found} since people got latents to rate{where}. All answers are kept. To rate what is there now, "
            f"{begin_anew(folder)}."]


def _free(file: Path) -> Path:
    """A name that no file has: `ratings.csv`, `ratings.2.csv`, ..."""
    numbered = (file.with_name(f"{file.stem}.{n}{file.suffix}") for n in range(2, 10_000))
    return file if not file.exists() else next(other for other in numbered if not other.exists())
