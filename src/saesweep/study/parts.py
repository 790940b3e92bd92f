"""What has been collected of one subject so far, in files, so that reading resumes after a restart, with any number of ranks.

    <folder>/study/state/
      part-<rank>.safetensors      the mergeable arrays of both halves, with the portions they are of and the lists they go with
      lists-<...>.safetensors      activations that were added between two saves

A part that is written replaces the one before it. Where a kill has left two parts, one of which has all portions of the
other, the smaller one was merged into the larger one and is left out.
"""
from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from saesweep.storage import sweep_table
from saesweep.study import arrays
from saesweep.study.accumulator import SHAPES, Accumulator
from saesweep.study.hits import HALVES, HalfName
from saesweep.study.keys import sampling_order
from saesweep.study.sampling import TOP_UP, strata
from saesweep.study.settings import PREFIX
from saesweep.study.subjects import Subject


def state_folder(subject: Subject) -> Path:
    return subject.file.parent / "state"


def listed_latents(subject: Subject, settings: Mapping[str, Any]) -> Bool[np.ndarray, " d_sae"]:
    """The latents all of whose activations are kept: the first in the sampling order, and the first of each stratum by the
    frequency in the SAE's own evaluation, as few of the first are frequent."""
    order, kept = sampling_order(settings["seed"], subject.number, subject.d_sae), np.zeros(subject.d_sae, bool)
    kept[order[: PREFIX * settings["features"]]] = True
    if subject.control is None and (frequency := sweep_table.frequency(subject.job)) is not None:
        stratum = strata(frequency[order])
        for number, count in enumerate(TOP_UP):
            kept[order[stratum == number][:count]] = True
    return kept


class Saved(NamedTuple):
    """A part on disk."""

    file: Path
    done: frozenset[int]  # numbers of portions
    lists: list[str]  # names of files


def saved(folder: Path) -> list[Saved]:
    """The parts of a subject; no two have a portion in common."""
    headers = [(file, arrays.metadata(file)) for file in sorted(folder.glob("part-*.safetensors"))]
    parts = [Saved(file, frozenset(json.loads(of["done"])), json.loads(of["lists"])) for file, of in headers]
    kept, done = [], set[int]()
    for part in sorted(parts, key=lambda part: -len(part.done)):
        if not part.done <= done:
            kept.append(part)
            done |= part.done
    return sorted(kept)


class Part:
    """What one rank collects of one subject."""

    def __init__(self, subject: Subject, settings: Mapping[str, Any], mine: Iterable[Saved] = ()) -> None:
        self.subject, self.folder = subject, state_folder(subject)
        kept = listed_latents(subject, settings)
        self.halves: dict[HalfName, Accumulator] = {half: Accumulator(settings["seed"], kept) for half in HALVES}
        self.done, self.lists, self.merged = set[int](), list[str](), list[Path]()
        for part in mine:
            self._merge(part)
        self.unsaved = 0  # portions

    def _merge(self, part: Saved) -> None:
        found, _ = arrays.read(part.file)
        for half in HALVES:
            self.halves[half].merge({name: found[f"{half}.{name}"] for name in SHAPES})
        self.done |= part.done
        self.lists += part.lists
        self.merged.append(part.file)

    @property
    def listed(self) -> int:
        """Entries of the lists in memory."""
        return sum(half.listed for half in self.halves.values())

    def save(self, rank: int, settings: Mapping[str, Any]) -> None:
        """Write the lists, then the part that names them; a part that was merged into it goes."""
        if not self.unsaved:
            return
        name = f"lists-{uuid.uuid4().hex}.safetensors"
        lists = {f"{half}.{key}": x for half, state in self.halves.items() for key, x in state.lists().items()}
        arrays.write(self.folder / name, lists, {})
        content = {f"{half}.{key}": x for half, state in self.halves.items() for key, x in state.arrays.items()}
        header = {"done": json.dumps(sorted(self.done)), "lists": json.dumps([*self.lists, name])}
        arrays.write(file := self.folder / f"part-{rank}.safetensors", content, header | dict(settings))
        self.lists.append(name)
        for half in self.halves.values():
            half.clear_lists()
        for other in self.merged:
            if other != file:
                other.unlink(missing_ok=True)
        self.merged, self.unsaved = [], 0
