"""Activations at the hook points -> shuffled, centred and scaled batches.

    a pool    documents_per_pool documents, tokenised; their blocks in an order drawn from stream_seed (reading.py)
    a window  so many tokens of those blocks, read in the language model; their rows in an order drawn from stream_seed
    a batch   the next batch_tokens rows of the window

What a window leaves over, less than one batch, is not used. Every order depends on stream_seed and the number of the
pool or window alone, so a position in the stream is a handful of numbers, and any SAE of a sweep sees the same tokens.
"""
from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.data.normalisation import Statistics
from saesweep.data.prefetch import ReadAhead, drain
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime.rng import WINDOW, generator


@runtime_checkable
class Source(Protocol):
    """Windows of activation rows, in a fixed order, from any position on."""

    def window(self, rows: int) -> Rows: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Position(NamedTuple):
    """`offset` rows into window number `window`, which begins at `source`; `step` batches were handed out so far."""

    step: int
    window: int
    offset: int
    source: dict[str, Any]


class ActivationStream:
    """`steps` batches: {hook point: rows without sinks, centred and scaled}, from the start or from a saved position.

    What it hands out depends on its arguments and the position alone, so its state is the same on every rank.
    """

    def __init__(
        self, source: Source, *, steps: int, batch_tokens: int, stream_seed: int,
        center: bool, max_norm: float | None, statistics: int, ahead: ReadAhead | None = None,
    ):
        """`ahead`: where the source can be read in parts, between the steps."""
        self.ahead = ahead
        self.source, self.steps, self.batch_tokens, self.seed = source, steps, batch_tokens, stream_seed
        self.position = self._before = Position(0, 0, 0, source.state_dict())
        self.seconds_reading, self.rows_read = 0.0, 0  # so far, in this process
        self._rows: Rows = {}
        self._measure = lambda x, point: Statistics.of(x[:statistics], center=center, max_norm=max_norm, point=point)
        self._statistics: dict[HookPoint, Statistics] | None = None

    def __len__(self) -> int:
        """Of the batches that are left."""
        return self.steps - self.position.step

    def __iter__(self) -> Iterator[dict[HookPoint, Float[Tensor, "_ _"]]]:
        while self.position.step < self.steps:
            yield {point: self._clean(point, x) for point, x in self._next_rows().items() if point in self._statistics}

    @property
    def statistics(self) -> dict[HookPoint, Statistics]:
        """Of the first rows, unless they were saved."""
        if self._statistics is None:
            self._begin_window()
        return self._statistics

    @property
    def rows_at_hand(self) -> int:
        """Read, and not handed out yet."""
        return len(next(iter(self._rows.values()))) - self.position.offset if self._rows else 0

    def only(self, points: Collection[HookPoint]) -> None:
        """Hand out these alone: other ranks train the SAEs of the rest."""
        self._statistics = {point: x for point, x in self.statistics.items() if point in points}

    def _clean(self, point: HookPoint, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "_ d_in"]:
        statistics = self.statistics[point]
        return statistics.apply(x[statistics.ordinary(x)])

    def _next_rows(self) -> Rows:
        if not self._rows:
            self._begin_window()
        at = self._before = self.position
        end = at.offset + self.batch_tokens
        rows = {point: x[at.offset : end] for point, x in self._rows.items()}
        if end + self.batch_tokens <= len(next(iter(self._rows.values()))):
            self.position = Position(at.step + 1, at.window, end, at.source)
        else:
            self.position = Position(at.step + 1, at.window + 1, 0, self._after)
            self._rows = {}  # before the next window is harvested
        if self.ahead:
            self.ahead.until(end)
        return rows

    def _begin_window(self) -> None:
        """The window at the position, no larger than the rest of the run needs, its rows in random order."""
        at = self.position
        left = self.steps - at.step + at.offset // self.batch_tokens
        start, rows = time.monotonic(), self.ahead and self.ahead.window()
        if rows is None:
            rows = drain(self._reading(left * self.batch_tokens))
        self._after = self.source.state_dict()
        count = len(next(iter(rows.values())))
        order = torch.randperm(count, generator=generator(self.seed, WINDOW, at.window))
        self._rows = {point: x[order.to(x.device)] for point, x in rows.items()}
        self.seconds_reading, self.rows_read = self.seconds_reading + time.monotonic() - start, self.rows_read + count
        if self._statistics is None:
            self._statistics = {point: self._measure(x, point) for point, x in self._rows.items()}
        left -= count // self.batch_tokens
        if self.ahead and left > 0:
            self.ahead.begin(self._reading(left * self.batch_tokens))

    def _reading(self, wanted: int) -> Generator[int, None, Rows]:
        """A window of at least a batch: blocks that are mostly padding, or a small window, may hold less."""
        rows = yield from self._part(wanted)
        while (count := len(next(iter(rows.values())))) < self.batch_tokens:
            more = yield from self._part(wanted - count)
            rows = {point: torch.cat([x, more[point]]) for point, x in rows.items()}
        return rows

    def _part(self, wanted: int) -> Generator[int, None, Rows]:
        return (yield from self.source.reading(wanted)) if self.ahead else self.source.window(wanted)

    def position_after(self, step: int) -> Position:
        """Of the last batch that was handed out, or of the one before it: the last may not have been trained on."""
        at = self.position if step == self.position.step else self._before
        assert at.step == step, f"the stream stands at step {self.position.step}, and forgot about step {step}"
        return at

    def resume(self, position: Position, statistics: Mapping[HookPoint, Statistics]) -> None:
        self.position = self._before = position
        self.source.load_state_dict(position.source)
        self._rows, self._statistics = {}, dict(statistics)
        if self.ahead:
            self.ahead.begin(None)
