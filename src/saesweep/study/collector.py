"""One pass over the language model for all SAEs and controls of one or more sweeps.

    held-out documents -> two halves -> portions -> activations at the hook points -> active latents -> what is kept of each

Ranks take every other portion, and each SAE is written by one of them from what all have left in its folder.
"""
from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saesweep.data.normalisation import require_finite
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime import distributed, signals
from saesweep.runtime.console import ProgressLine, TimeLeft
from saesweep.runtime.isolate import isolate_failures
from saesweep.study import controls, hits_file
from saesweep.study.accumulator import listed
from saesweep.study.activations import Activations
from saesweep.study.hits import HALVES, HalfName, TextHalf
from saesweep.study.parts import Part, saved, state_folder
from saesweep.study.record import header
from saesweep.study.subjects import Subject
from saesweep.study.text import Text, portions, some_blocks

log = logging.getLogger(__name__)
ELEMENTS = 1 << 26  # of the dense latents that are in memory at a time
Dense = Mapping[HalfName, Bool[np.ndarray, " tokens"]]
LISTED = 1 << 24  # entries of the lists of all SAEs in memory, about 16 bytes each, before they are saved


def dense_of(half: TextHalf, tokens: int) -> Bool[np.ndarray, " tokens"]:
    """On which of its tokens the activations of all latents are kept."""
    found = np.zeros(len(half.tokens), bool)
    found[half.dense(tokens)] = True
    return found


class OrdinaryRows:
    """A micro-batch without sinks: those of one hook point and normalisation are left out once for all its SAEs."""

    def __init__(self) -> None:
        self._x: Tensor | None = None  # the micro-batch that was asked for last
        self._found = dict[Any, tuple[Tensor, np.ndarray, np.ndarray]]()

    def __call__(
        self, x: Float[Tensor, "rows d_in"], positions: Int64[np.ndarray, " rows"], subject: Subject
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Rows and positions of the others, and positions of the sinks. Raises UsageError where a row is not finite."""
        if self._x is not x:
            self._x, self._found = x, {}
        key = subject.statistics.largest, subject.statistics.centre.numpy().tobytes()
        if key not in self._found:
            require_finite(x, subject.point)
            ordinary = subject.statistics.ordinary(x)
            counted = ordinary.cpu().numpy()
            rows = x if counted.all() else x[ordinary]
            self._found[key] = rows.float(), positions[counted], positions[~counted]
        return self._found[key]


class Collecting:
    """A subject and its encoder. left: portions that nobody has read."""

    def __init__(
        self, part: Part, dense: Dense, left: set[int], ordinary: OrdinaryRows, encoder: controls.Encoder, scale: float
    ) -> None:
        self.part, self.dense, self.left, self.ordinary, self.encoder, self.scale = part, dense, left, ordinary, encoder, scale
        self.rows = max(64, min(2048, ELEMENTS // part.subject.d_sae))
        self.failed: Exception | None = None

    def fail(self, error: Exception) -> None:
        """The others go on without it."""
        log.error("%s: its activations cannot be collected: %s", self.part.subject.label, error,
                  exc_info=not isinstance(error, UsageError))
        self.failed = error

    def add(
        self, half: TextHalf, name: HalfName, x: Float[Tensor, "rows d_in"], positions: Int64[np.ndarray, " rows"]
    ) -> None:
        """Raw activations of a micro-batch, at these positions of a half. Raises UsageError where they are not finite."""
        state = self.part.halves[name]
        x, positions, sinks = self.ordinary(x, positions, self.part.subject)
        if len(sinks):
            state.add_sinks(sinks)
        documents, dense = half.document[positions], self.dense[name][positions]
        for first in range(0, len(x), self.rows):
            some = slice(first, first + self.rows)
            found = listed(self.encoder.list_active(x[some]), self.scale)
            state.add(found, positions[some], documents[some], dense[some])


class Collector:
    """subjects: of one group. name: the digest of the text."""

    def __init__(
        self, subjects: Sequence[Subject], source: Activations, text: Text, name: str, settings: Mapping[str, Any]
    ) -> None:
        self.subjects, self.source, self.text, self.name, self.settings = subjects, source, text, name, settings
        self.portions, self.line, self.saved_at = portions(text), ProgressLine(), time.monotonic()
        self.dense: Dense = {half: dense_of(text[half], settings["dense_tokens"]) for half in HALVES}
        self.points, self.members = list(dict.fromkeys(one.point for one in subjects)), list[Collecting]()
        self.whole = True  # no portion is half read

    @torch.no_grad()
    def run(self, device: torch.device) -> dict[str, Exception]:
        """Read what is left to read, and write each subject's file. Returns what made a subject fail, by its label."""
        self.members = self._begin(device)
        self.time_left = TimeLeft()
        wanted = sorted(set[int]().union(*(member.left for member in self.members)))
        mine = wanted[distributed.rank() :: distributed.world_size()]
        try:
            for count, number in enumerate(mine):
                self._progress(mine, count)
                with signals.deferred():  # a portion is read whole
                    self.whole = False
                    self._read(number)
                    self.whole = True
                if time.monotonic() - self.saved_at > 60 * self.settings["save_minutes"] or self._listed() > LISTED:
                    self._save()
        finally:
            if self.whole:
                self._save()
        distributed.all_gather(None)  # all have saved
        self._write()
        return {member.part.subject.label: member.failed for member in self.members if member.failed}

    def _begin(self, device: torch.device) -> list[Collecting]:
        rank, world = distributed.rank(), distributed.world_size()
        found = [saved(state_folder(subject)) for subject in self.subjects]
        distributed.all_gather(None)  # all have looked before one writes
        sample = self._sample() if any(subject.control for subject in self.subjects) else {}
        members, rows = [], OrdinaryRows()
        for subject, parts in zip(self.subjects, found, strict=True):
            x = sample.get(subject.point)
            x = None if x is None else x[subject.statistics.ordinary(x)].float()
            left = set(range(len(self.portions))) - {number for part in parts for number in part.done}
            part = Part(subject, self.settings, parts[rank::world])
            members.append(Collecting(part, self.dense, left, rows, *controls.encoder_of(subject, x, device)))
        return members

    def _sample(self) -> Rows:
        """Activations of some blocks of the fit half, evenly spaced, on which controls are measured."""
        parts = dict[HookPoint, list[Tensor]]()
        ProgressLine()(f"measuring the controls on {controls.TOKENS:,} tokens")
        for rows in self.source.rows(self.text["fit"], some_blocks(self.text, "fit", controls.TOKENS), self.points):
            for point, x in rows.items():
                parts.setdefault(point, []).append(x)
        return {point: torch.cat(found) for point, found in parts.items()}

    def _read(self, number: int) -> None:
        """Add a portion to every member that lacks it."""
        portion = self.portions[number]
        half, members = self.text[portion.half], [m for m in self.members if number in m.left and not m.failed]
        positions = portion.start + np.flatnonzero(half.ordinary[portion.start : portion.stop])
        first = 0
        for rows in self.source.rows(half, [portion], self.points):
            count = len(next(iter(rows.values())))
            for member in members:
                with isolate_failures(member.fail):
                    member.add(half, portion.half, rows[member.part.subject.point], positions[first : first + count])
            first += count
        assert first == len(positions), f"{first} activations of {len(positions)} tokens"
        for member in members:
            member.part.done.add(number)
            member.part.unsaved += 1

    def _progress(self, mine: Sequence[int], count: int) -> None:
        read, whole = (sum(self.portions[i].stop - self.portions[i].start for i in some) for some in (mine[:count], mine))
        self.line(f"collecting activations of {len(self.members)} SAEs and controls: {read:,} of {whole:,} tokens"
                  f"{self.time_left(read, whole)}")

    def _listed(self) -> int:
        return sum(member.part.listed for member in self.members)

    def _save(self) -> None:
        for member in (member for member in self.members if not member.failed):
            member.part.save(distributed.rank(), header(member.part.subject, self.settings, self.name))
        self.saved_at = time.monotonic()

    def _write(self) -> None:
        """Of the subjects that all ranks have read to the end, this rank's share: one at a time in memory."""
        for member in self.members:
            member.part.halves.clear()  # they are on disk
        mine, line = self.members[distributed.rank() :: distributed.world_size()], ProgressLine()
        for count, member in enumerate(mine):
            line(f"writing the activations of SAEs and controls: {count} of {len(mine)}")
            whole = hits_file.merged(member.part, self.settings)
            if len(whole.done) == len(self.portions):
                hits_file.write(whole, header(whole.subject, self.settings, self.name))
                hits_file.remove_state(whole)
        distributed.all_gather(None)
