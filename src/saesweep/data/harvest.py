"""Token blocks -> activations at the hook points: a text that is read by a language model.

A pool of documents is tokenised, and its blocks are put in an order drawn from stream_seed. A window is as many of those
blocks as hold so many ordinary tokens; the language model takes it a micro-batch at a time, without the columns that are
padding in all of the micro-batch's blocks, and stops at the last hook point.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saesweep.data.micro_batches import micro_batches, ordinary_positions, tokens_wanted
from saesweep.data.prefetch import drain
from saesweep.data.text import Corpus, TextEnded, blocks
from saesweep.lm.hooks import HookPoint, Rows, read
from saesweep.lm.models import LanguageModel
from saesweep.runtime import distributed
from saesweep.runtime.console import ProgressLine
from saesweep.runtime.rng import POOL, generator

log = logging.getLogger(__name__)


class LanguageModelSource:
    """Reads a text with a language model."""

    def __init__(
        self, lm: LanguageModel, corpus: Corpus, points: Sequence[HookPoint], *,
        context: int, window: int, forward_tokens: int, documents_per_pool: int, stream_seed: int,
    ):
        self.lm, self.corpus, self.points, self.context = lm, corpus, tuple(points), context
        self.window_tokens, self.forward_tokens = window, forward_tokens
        self.documents_per_pool, self.seed, self.line = documents_per_pool, stream_seed, ProgressLine()
        self.load_state_dict({"pool": 0, "position": 0})

    def window(self, rows: int) -> Rows:
        """The next window; a smaller one where no more than `rows` are wanted."""
        return drain(self.reading(rows), self.progress_callback(min(rows, self.window_tokens)))

    def progress_callback(self, wanted: int) -> Callable[[int], None]:
        """Prints how many of the wanted tokens are harvested."""
        return lambda rows: self.line(f"reading the text: {min(rows, wanted):,} of {wanted:,} tokens")

    def reading(self, rows: int) -> Generator[int, None, Rows]:
        """`window`, a micro-batch at a time; each tells how many rows there are by then."""
        blocks, _ = self.next_blocks(tokens_wanted(rows, self.context, self.window_tokens, self.lm.tokenizer))
        return (yield from self._read(blocks, self.points))

    def read(
        self, tokens: Int[Tensor, "blocks context"], points: Sequence[HookPoint] | None = None,
        tell: Callable[[int], None] = lambda rows: None,
    ) -> Rows:
        """Activations at the ordinary positions of these blocks; every rank reads its share of them, and has all."""
        return drain(self._read(tokens, self.points if points is None else points), tell)

    def _read(self, tokens: Int[Tensor, "blocks context"], points: Sequence[HookPoint]) -> Generator[int, None, Rows]:
        parts = micro_batches(tokens, self.forward_tokens)
        rows = [int(self.ordinary(part).sum()) for part in parts]
        mine = range(distributed.rank(), len(parts), distributed.world_size()) or range(1)  # the first for its shape alone
        read = {}
        for i in mine:
            read[i] = harvest(self.lm, points, parts[i])
            yield sum(rows[: i + 1])
        return distributed.all_gather_rows(read, rows)

    def ordinary(self, tokens: Int[Tensor, "blocks context"]) -> Bool[Tensor, "blocks context"]:
        return ordinary_positions(tokens, self.lm.tokenizer)

    def next_blocks(self, wanted: int) -> tuple[Int[Tensor, "taken context"], list[tuple[int, int]]]:
        """The blocks that hold so many ordinary tokens, fewer where the text ends; and, after each of them, the pool and
        position of the next one."""
        taken, ends = [], []
        while wanted > 0 and self._has_pool(needed=not taken):
            part = self._pool[self.position :]
            found = self.ordinary(part).sum(1).cumsum(0)
            part = part[: int((found < wanted).sum()) + 1]
            taken.append(part)
            wanted -= int(found[len(part) - 1])
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
            except TextEnded:
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
            except TextEnded:
                self._documents = None  # it has ended: who asks for more is told so by a new one
                if taken == 0:
                    raise
                return

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool_number, "position": self.position, "forward_tokens": self.forward_tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (kept := state.get("forward_tokens", self.forward_tokens)) != self.forward_tokens:
            log.info("the language model goes on with %s tokens at a time, for the same bits", f"{kept:,}")
            self.forward_tokens = kept
        self.pool_number, self.position = state["pool"], state["position"]
        self._documents: Iterator[str] | None = None
        self._pool: Int[Tensor, "blocks context"] | None = None


def harvest(lm: LanguageModel, points: Sequence[HookPoint], tokens: Int[Tensor, "batch context"]) -> Rows:
    """Activations at the ordinary positions of the blocks, in the order of the text. Nothing here waits for the device."""
    device = next(lm.module.parameters()).device
    keep = ordinary_positions(tokens, lm.tokenizer).flatten().nonzero().squeeze(1)
    keep, tokens = (x.to(device, non_blocking=True) for x in (keep, tokens.clamp(min=0)))
    return {point: x.flatten(0, 1).index_select(0, keep) for point, x in read(lm.module, points, tokens).items()}
