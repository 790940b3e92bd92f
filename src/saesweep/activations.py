"""Token blocks -> activations at the hook points -> shuffled, centred and scaled batches.

    a pool    documents_per_pool documents, tokenised; their blocks in an order drawn from stream_seed
    a window  so many tokens of those blocks, read in the language model; their rows in an order drawn from stream_seed
    a batch   the next batch_tokens rows of the window

What a window leaves over, less than one batch, is not used. Every order depends on stream_seed and the number of the
pool or window alone, so a position in the stream is a handful of numbers, and any SAE of a sweep sees the same tokens.
"""
from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saesweep import distributed
from saesweep.errors import UsageError
from saesweep.models import LanguageModel, Tokenizer
from saesweep.read_ahead import ReadAhead, at_once
from saesweep.sites import HookPoint, read
from saesweep.statistics import Statistics
from saesweep.text import Corpus, blocks

Rows = dict[HookPoint, Float[Tensor, "rows _"]]
POOL, WINDOW, HELD_OUT, SYNTHETIC, SYNTHETIC_EVALUATION, SYNTHETIC_CALIBRATION = range(6)  # what is drawn, see generator


@runtime_checkable
class Source(Protocol):
    """Windows of activation rows, in a fixed order, from any position on."""

    def window(self, rows: int) -> Rows: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class LanguageModelSource:
    """Reads a text with a language model."""

    def __init__(
        self, lm: LanguageModel, corpus: Corpus, points: Sequence[HookPoint], *,
        context: int, window: int, forward_tokens: int, documents_per_pool: int, stream_seed: int,
    ):
        self.lm, self.corpus, self.points, self.context = lm, corpus, tuple(points), context
        self.window_tokens, self.forward_tokens = window, forward_tokens
        self.documents_per_pool, self.seed = documents_per_pool, stream_seed
        self.load_state_dict({"pool": 0, "position": 0})

    def window(self, rows: int) -> Rows:
        """The next window; a smaller one where no more than `rows` are wanted."""
        return at_once(self.reading(rows))

    def reading(self, rows: int) -> Generator[int, None, Rows]:
        """`window`, a micro-batch at a time; each tells how many rows there are by then."""
        blocks, _ = self.next_blocks(blocks_wanted(rows, self.context, self.window_tokens))
        return (yield from self._read(blocks, self.points))

    def read(self, tokens: Int[Tensor, "blocks context"], points: Sequence[HookPoint] | None = None) -> Rows:
        """Activations at the ordinary positions of these blocks; every rank reads its share of them, and has all."""
        return at_once(self._read(tokens, self.points if points is None else points))

    def _read(self, tokens: Int[Tensor, "blocks context"], points: Sequence[HookPoint]) -> Generator[int, None, Rows]:
        parts = micro_batches(tokens, self.forward_tokens)
        rows = [int(self.trainable(part).sum()) for part in parts]
        mine = range(distributed.rank(), len(parts), distributed.world_size()) or range(1)  # the first for its shape alone
        read = {}
        for i in mine:
            read[i] = harvest(self.lm, points, parts[i])
            yield sum(rows[: i + 1])
        return distributed.exchanged(read, rows)

    def trainable(self, tokens: Int[Tensor, "blocks context"]) -> Bool[Tensor, "blocks context"]:
        return trainable(tokens, self.lm.tokenizer)

    def next_blocks(self, count: int) -> tuple[Int[Tensor, "taken context"], list[tuple[int, int]]]:
        """So many blocks, fewer where the text ends; and, after each of them, the pool and position of the next one."""
        taken, ends = [], []
        while count > 0 and self._has_pool(needed=not taken):
            part = self._pool[self.position : self.position + count]
            taken.append(part)
            count -= len(part)
            ends += [(self.pool_number, self.position + i) for i in range(1, len(part) + 1)]
            self.position += len(part)
            if self.position == len(self._pool):
                self.pool_number, self.position, self._pool = self.pool_number + 1, 0, None
                ends[-1] = (self.pool_number, 0)
        return torch.cat(taken), ends

    def _has_pool(self, needed: bool) -> bool:
        """Whether there are blocks to take; where the text has ended and they are needed, its error says so."""
        if self._pool is None:
            try:
                self._pool = self._read_pool(self.pool_number)
            except UsageError:
                if needed:
                    raise
        return self._pool is not None

    def _read_pool(self, number: int) -> Int[Tensor, "blocks context"]:
        if self._documents is None:
            self._documents = self.corpus.documents("train", start=number * self.documents_per_pool)
        pool = torch.stack(list(blocks(self._take(self.documents_per_pool), self.lm.tokenizer, self.context)))
        return pool[torch.randperm(len(pool), generator=generator(self.seed, POOL, number))]

    def _take(self, count: int) -> Iterator[str]:
        """The next documents; fewer at the end of the text, whose error is raised only where there is none."""
        for taken in range(count):
            try:
                yield next(self._documents)
            except UsageError:
                self._documents = None  # it has ended: who asks for more is told so by a new one
                if taken == 0:
                    raise
                return

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool_number, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool_number, self.position = state["pool"], state["position"]
        self._documents: Iterator[str] | None = None
        self._pool: Int[Tensor, "blocks context"] | None = None


def blocks_wanted(rows: int, context: int, window: int) -> int:
    """For so many rows, at most a window; where padding leaves fewer rows, another window follows."""
    return min(max(1, window // context), math.ceil(1.03 * rows / (context - 1)))


def micro_batches(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> Sequence[Int[Tensor, "_ context"]]:
    """What goes through the language model at once: so many tokens, but whole blocks and at least one."""
    return tokens.split(max(1, forward_tokens // tokens.shape[1]))


def generator(*numbers: int) -> torch.Generator:
    """A random generator of its own for these: a seed, what is drawn (POOL to SYNTHETIC_CALIBRATION), which of them."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(seed)


def trainable(tokens: Int[Tensor, "*batch context"], tokenizer: Tokenizer) -> Bool[Tensor, "*batch context"]:
    """Which positions hold ordinary text: not padding (-1) and no special token."""
    special = torch.tensor(sorted(tokenizer.special), dtype=tokens.dtype)
    return (tokens >= 0) & ~torch.isin(tokens, special)


def harvest(lm: LanguageModel, points: Sequence[HookPoint], tokens: Int[Tensor, "batch context"]) -> Rows:
    """Activations at the ordinary positions of the blocks, in the order of the text. The host waits for no device."""
    device = next(lm.module.parameters()).device
    keep = trainable(tokens, lm.tokenizer).flatten().nonzero().squeeze(1)
    keep, tokens = (x.to(device, non_blocking=True) for x in (keep, tokens.clamp(min=0)))
    return {point: x.flatten(0, 1).index_select(0, keep) for point, x in read(lm.module, points, tokens).items()}


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
        self._rows: Rows = {}
        self._measure = lambda x: Statistics.of(x[:statistics], center=center, max_norm=max_norm)
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
        rows = self.ahead and self.ahead.window()
        if rows is None:
            rows = at_once(self._reading(left * self.batch_tokens))
        self._after = self.source.state_dict()
        count = len(next(iter(rows.values())))
        order = torch.randperm(count, generator=generator(self.seed, WINDOW, at.window))
        self._rows = {point: x[order.to(x.device)] for point, x in rows.items()}
        if self._statistics is None:
            self._statistics = {point: self._measure(x) for point, x in self._rows.items()}
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
