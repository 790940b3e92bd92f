"""Shuffled, normalised batches of activations.

    pool    documents_per_pool documents, tokenised; their blocks shuffled with stream_seed (harvest.py)
    window  activations.window tokens of those blocks, harvested
    pass    the rows of the window, shuffled with stream_seed: activations.passes times, each time in another order
    batch   the next batch_tokens rows of the pass

Rows left over at the end of a window, fewer than a batch, are not used. Each order depends only on stream_seed and the number
of the pool, window or pass, so a position in the stream is a few numbers and all SAEs of a sweep see the same tokens.
"""
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saesweep.data.normalisation import Statistics
from saesweep.data.prefetch import ReadAhead, drain
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime.rng import WINDOW, generator

SPARED = 1.25  # of an even batch: the share of sinks may be this much larger than in the first rows


@runtime_checkable
class Source(Protocol):
    """Windows of activations [rows, d_in] per hook point, in a fixed order, from any saved position.

    A source that supports read-ahead also has `window_by_micro_batch(rows)`: see LanguageModelSource.
    """

    def window(self, rows: int) -> Rows: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Position(NamedTuple):
    """After `step` batches, with `offset` rows of window number `window` handed out, those of each pass counted; the window
    begins at the source's state `source`."""

    step: int
    window: int
    offset: int
    source: dict[str, Any]


class ActivationStream:
    """`steps` batches {hook point: normalised rows [tokens, d_in] without sinks}, from the start or a saved position; of a
    transcoder the rows are [x | y], [tokens, d_in + d_out].

    Batches depend only on the arguments and the position, which are the same on every rank.
    """

    def __init__(
        self, source: Source, *, steps: int, batch_tokens: int, stream_seed: int, passes: int = 1,
        center: bool, max_norm: float | None, statistics: int, ahead: ReadAhead | None = None, even: bool = False,
    ):
        """`passes`: how often each row is handed out. `statistics`: number of rows they are measured on. `ahead`: for a source
        that supports read-ahead. `even`: batches have the same number of rows; a few rows of each window are not used."""
        self.ahead, self.passes, self.even = ahead, passes, even
        self.source, self.steps, self.batch_tokens, self.seed = source, steps, batch_tokens, stream_seed
        self.position = self._previous = Position(0, 0, 0, source.state_dict())
        self.seconds_reading, self.rows_read = 0.0, 0  # harvested by this process
        self._rows: Rows = {}
        self._ordinary: dict[HookPoint, Bool[Tensor, " rows"]] = {}  # of the window
        self._measured_rows = statistics
        self._measure = lambda x, point: Statistics.of(x, center=center, max_norm=max_norm, point=point)
        self._statistics: dict[HookPoint, Statistics] | None = None

    def __len__(self) -> int:
        """Number of batches left."""
        return self.steps - self.position.step

    def __iter__(self) -> Iterator[dict[HookPoint, Float[Tensor, "_ _"]]]:
        while self.position.step < self.steps:
            yield {point: self.statistics[point].batch(*each) for point, each in self._next_rows().items()}

    @property
    def statistics(self) -> dict[HookPoint, Statistics]:
        """Those of the checkpoint, else measured on the first rows."""
        if self._statistics is None:
            self._begin_window()
            assert self._statistics is not None
        return self._statistics

    @property
    def rows_at_hand(self) -> int:
        """Rows harvested and yet to be handed out, counted once for each pass."""
        return self.passes * self._rows_per_pass - self.position.offset if self._rows else 0

    def only(self, points: Iterable[HookPoint]) -> None:
        """Hand out only these hook points: other ranks train the SAEs of the rest."""
        known = self.statistics  # of the tensors that are read, or those of the checkpoint
        self._statistics = {point: known[point] if point in known else _with_target(known, point) for point in points}
        self._find_sinks()

    def _next_rows(self) -> dict[HookPoint, list[Tensor]]:
        if not self._rows:
            self._begin_window()
        at = self._previous = self.position
        number, begin = divmod(at.offset, self._rows_per_pass)
        if number != self._pass:
            self._begin_pass(number)
        end = at.offset + self.batch_tokens
        batches = {point: of_pass[begin // self.batch_tokens] for point, of_pass in self._batches.items()}
        rows = {point: [x[batches[point]] for x in point.of(self._rows)] for point in self.statistics}
        if end < self.passes * self._rows_per_pass:
            self.position = Position(at.step + 1, at.window, end, at.source)
        else:
            self.position = Position(at.step + 1, at.window + 1, 0, self._next_source)
            self._rows = {}  # before the next window is harvested
        if self.ahead:
            self.ahead.until(math.ceil(end / self.passes))
        return rows

    def _begin_window(self) -> None:
        """Harvest the window at the position, no larger than the remaining steps need."""
        at = self.position
        left = self.steps - at.step + at.offset // self.batch_tokens
        start, rows = time.monotonic(), self.ahead and self.ahead.window()
        if rows is None:
            rows = drain(self._harvest(self._rows_of(left)))
        self._rows, self._next_source, self._ordinary = rows, self.source.state_dict(), {}
        count = len(next(iter(rows.values())))
        self.seconds_reading, self.rows_read = self.seconds_reading + time.monotonic() - start, self.rows_read + count
        self._shuffled = torch.randperm(count, generator=generator(self.seed, WINDOW, at.window))
        if self._statistics is None:
            first = self._shuffled[: self._measured_rows]
            self._statistics = {point: self._measure(x[first.to(x.device)], point) for point, x in rows.items()}
        self._statistics = {point: x.on(point.of(rows)[0].device) for point, x in self._statistics.items()}
        self._find_sinks()
        self._rows_per_pass, self._pass = min(count - count % self.batch_tokens, self._rows_of(left)), -1
        left -= self.passes * (self._rows_per_pass // self.batch_tokens)
        if self.ahead and left > 0:
            self.ahead.begin(self._harvest(self._rows_of(left)))

    def _find_sinks(self) -> None:
        """In parts of a batch, as norms take the rows in fp32."""
        for point, statistics in (self._statistics or {}).items():
            if self._rows and point not in self._ordinary:
                parts = zip(*(x.split(self.batch_tokens) for x in point.of(self._rows)), strict=True)
                self._ordinary[point] = torch.cat([statistics.ordinary(*part) for part in parts])

    def _rows_of(self, steps: int) -> int:
        """Rows that suffice for these steps."""
        return math.ceil(steps / self.passes) * self.batch_tokens

    def _begin_pass(self, number: int) -> None:
        """All passes hand out the same rows of the window, those of whole batches of the first."""
        order = self._shuffled[: self._rows_per_pass]
        if number > 0:
            order = order[torch.randperm(len(order), generator=generator(self.seed, WINDOW, self.position.window, number))]
        self._pass, self._batches = number, {point: self._without_sinks(point, order) for point in self.statistics}

    def _without_sinks(self, point: HookPoint, order: Int[Tensor, " rows"]) -> Sequence[Int[Tensor, " _"]]:
        """The rows of each batch of a pass. The host waits for a GPU here, once a pass, and not at every batch."""
        ordinary = self._ordinary[point]
        order = order.to(ordinary.device)
        keep = ordinary[order]
        rows = keep.view(-1, self.batch_tokens).sum(1).tolist()
        if self.even:
            rows = [min(sum(rows) // len(rows), self._rows_of_an_even_batch(point))] * len(rows)
        return order[keep][: sum(rows)].split(rows)

    def _rows_of_an_even_batch(self, point: HookPoint) -> int:
        """As many in every window that has no more sinks than this spares."""
        statistics = self.statistics[point]
        sinks = statistics.sinks + (0.0 if statistics.target is None else statistics.target.sinks)
        return max(1, int(self.batch_tokens * (1 - SPARED * sinks)))

    def _harvest(self, wanted: int) -> Generator[int, None, Rows]:
        """A window of at least one batch: several of the source's where blocks are mostly padding or its window is small."""
        rows = yield from self._source_window(wanted)
        while (count := len(next(iter(rows.values())))) < self.batch_tokens:
            more = yield from self._source_window(wanted - count)
            rows = {point: torch.cat([x, more[point]]) for point, x in rows.items()}
        return rows

    def _source_window(self, wanted: int) -> Generator[int, None, Rows]:
        if not self.ahead:
            return self.source.window(wanted)
        return (yield from self.source.window_by_micro_batch(wanted))  # pyright: ignore[reportAttributeAccessIssue] - see Source

    def position_after(self, step: int) -> Position:
        """The position after `step` batches: the last batch handed out may not have been trained on."""
        at = self.position if step == self.position.step else self._previous
        assert at.step == step, f"the stream is at step {self.position.step} and does not keep the position of step {step}"
        return at

    def resume(self, position: Position, statistics: Mapping[HookPoint, Statistics]) -> None:
        """Continue from the position and with the statistics of a checkpoint."""
        self.position = self._previous = position
        self.source.load_state_dict(position.source)
        self._rows, self._statistics = {}, dict(statistics)
        if self.ahead:
            self.ahead.begin(None)


def _with_target(known: Mapping[HookPoint, Statistics], point: HookPoint) -> Statistics:
    """Of a transcoder's hook point, from those of its two tensors."""
    x, y = (known[tensor] for tensor in point.tensors)
    return replace(x, target=y)
