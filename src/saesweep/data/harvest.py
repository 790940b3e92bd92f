"""Token blocks -> activations at the hook points: a text that is read by a language model.

A pool of documents is tokenised, and its blocks are put in an order drawn from stream_seed. A window is as many of those
blocks as hold so many ordinary tokens; the language model takes it a micro-batch at a time, without the columns that are
padding in all of the micro-batch's blocks, and stops at the last hook point.
"""
from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saesweep.data.prefetch import at_once
from saesweep.data.text import Corpus, TextEnded, blocks
from saesweep.lm.hooks import HookPoint, Rows, read
from saesweep.lm.models import LanguageModel, Tokenizer
from saesweep.runtime import distributed
from saesweep.runtime.console import Line
from saesweep.runtime.memory import out_of_memory
from saesweep.runtime.rng import POOL, generator
from saesweep.runtime.timing import quickest

log = logging.getLogger(__name__)
WORTH_IT = 1.05  # a larger micro-batch has to be so much faster, for the memory that it takes


class LanguageModelSource:
    """Reads a text with a language model."""

    def __init__(
        self, lm: LanguageModel, corpus: Corpus, points: Sequence[HookPoint], *,
        context: int, window: int, forward_tokens: int, documents_per_pool: int, stream_seed: int,
    ):
        self.lm, self.corpus, self.points, self.context = lm, corpus, tuple(points), context
        self.window_tokens, self.forward_tokens = window, forward_tokens
        self.documents_per_pool, self.seed, self.line = documents_per_pool, stream_seed, Line()
        self.load_state_dict({"pool": 0, "position": 0})

    def window(self, rows: int) -> Rows:
        """The next window; a smaller one where no more than `rows` are wanted."""
        return at_once(self.reading(rows), self.telling(min(rows, self.window_tokens)))

    def telling(self, wanted: int) -> Callable[[int], None]:
        """A line on the screen, now and then."""
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
        return at_once(self._read(tokens, self.points if points is None else points), tell)

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

    def next_blocks(self, wanted: int) -> tuple[Int[Tensor, "taken context"], list[tuple[int, int]]]:
        """The blocks that hold so many ordinary tokens, fewer where the text ends; and, after each of them, the pool and
        position of the next one."""
        taken, ends = [], []
        while wanted > 0 and self._has_pool(needed=not taken):
            part = self._pool[self.position :]
            found = self.trainable(part).sum(1).cumsum(0)
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


def tokens_wanted(rows: int, context: int, window: int, tokenizer: Tokenizer) -> int:
    """Ordinary tokens of a window for so many rows: what whole blocks of at most `window` tokens hold if none is padding."""
    blocks = min(max(1, window // context), math.ceil(1.03 * rows / (context - 1)))
    return blocks * (context - (tokenizer.bos is not None))


def micro_batches(tokens: Int[Tensor, "blocks context"], forward_tokens: int) -> list[Int[Tensor, "_ _"]]:
    """What goes through the language model at once: so many tokens, but whole blocks and at least one, each micro-batch cut
    to its longest block. No token sees those behind it, so what is cut off changes no other."""
    places = torch.arange(1, tokens.shape[1] + 1)
    lengths = ((tokens >= 0) * places).amax(1).clamp(min=1).tolist()  # up to the last token
    parts, first, longest = [], 0, 1
    for block, length in enumerate([*lengths, tokens.shape[1] * forward_tokens + 1]):
        if block > first and (block + 1 - first) * max(longest, length) > forward_tokens:
            parts.append(tokens[first:block, :longest])
            first, longest = block, 1
        longest = max(longest, length)
    return parts


def fill(tokens: Int[Tensor, "blocks context"], tokenizer: Tokenizer, forward_tokens: int) -> float:
    """The share of the positions in the micro-batches that hold ordinary tokens."""
    positions = sum(part.numel() for part in micro_batches(tokens, forward_tokens))
    return int(trainable(tokens, tokenizer).sum()) / positions


def trainable(tokens: Int[Tensor, "*batch context"], tokenizer: Tokenizer) -> Bool[Tensor, "*batch context"]:
    """Which positions hold ordinary text: not padding (-1) and no special token."""
    special = torch.tensor(sorted(tokenizer.special), dtype=tokens.dtype)
    return (tokens >= 0) & ~torch.isin(tokens, special)


def harvest(lm: LanguageModel, points: Sequence[HookPoint], tokens: Int[Tensor, "batch context"]) -> Rows:
    """Activations at the ordinary positions of the blocks, in the order of the text. Nothing here waits for the device."""
    device = next(lm.module.parameters()).device
    keep = trainable(tokens, lm.tokenizer).flatten().nonzero().squeeze(1)
    keep, tokens = (x.to(device, non_blocking=True) for x in (keep, tokens.clamp(min=0)))
    return {point: x.flatten(0, 1).index_select(0, keep) for point, x in read(lm.module, points, tokens).items()}


def timed_forward(lm: LanguageModel, points: Sequence[HookPoint], blocks: int, context: int) -> tuple[float, Rows]:
    """Seconds that so many blocks of random tokens take, and their activations."""
    tokens = torch.randint(lm.tokenizer.vocab_size, (blocks, context), generator=torch.Generator().manual_seed(0))
    return quickest(lambda: harvest(lm, points, tokens))


def fastest_forward(lm: LanguageModel, points: Sequence[HookPoint], context: int, most: int) -> int:
    """How many tokens a forward takes for a token to take the least time: context, twice that and so on, up to `most`.

    Of sizes that are level the smallest; where memory ends first, no more than half of what fits, for the SAEs need some.
    It is timed, so it may be another one the next time.
    """
    rates: dict[int, float] = {}
    size = context
    while size <= max(most, context) and not _is_past_its_best(list(rates.values())):
        try:
            rates[size] = size / timed_forward(lm, points, size // context, context)[0]
        except Exception as error:
            if not rates or not out_of_memory(error):
                raise
            if len(rates) > 1:
                del rates[size // 2]
            break
        size *= 2
    return next(size for size, rate in rates.items() if WORTH_IT * rate >= max(rates.values()))


def _is_past_its_best(rates: Sequence[float]) -> bool:
    return len(rates) > 2 and max(rates[-2:]) < WORTH_IT * max(rates[:-2])
