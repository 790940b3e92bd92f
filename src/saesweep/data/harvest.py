"""Harvest activations: run the language model over blocks of tokens and keep the activations at the hook points.

The documents of a pool are tokenised and their blocks shuffled with stream_seed. A window is the next blocks with a given
number of ordinary tokens. It is harvested micro-batch by micro-batch, blocks of like length together and without columns
that hold only padding; each forward pass stops at the last hook point. Rows are in the order of the text.
"""
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saesweep.data.micro_batches import by_length, lm_input, micro_batches, ordinary_positions, tokens_wanted
from saesweep.data.mixture import evenly, parts_of
from saesweep.data.prefetch import drain
from saesweep.data.text import PADDING, Corpus, TextEnded, blocks
from saesweep.lm.hooks import HookPoint, Rows, read
from saesweep.lm.models import LanguageModel
from saesweep.runtime import distributed
from saesweep.runtime.console import ProgressLine
from saesweep.runtime.rng import POOL, generator

log = logging.getLogger(__name__)


class LanguageModelSource:
    """Windows of activations of a language model on a text."""

    def __init__(
        self, lm: LanguageModel, corpus: Corpus, points: Sequence[HookPoint], *,
        context: int, window: int, forward_tokens: int, documents_per_pool: int, stream_seed: int,
    ):
        self.lm, self.corpus, self.points, self.context = lm, corpus, tuple(points), context
        self.window_tokens, self.forward_tokens = window, forward_tokens
        self.documents_per_pool, self.seed, self.line = documents_per_pool, stream_seed, ProgressLine()
        self.load_state_dict({"pool": 0, "position": 0})

    def window(self, rows: int) -> Rows:
        """The next window; a smaller one where no more than `rows` rows are wanted. Raises TextEnded (a UsageError)."""
        return drain(self.window_by_micro_batch(rows), self.progress_callback(min(rows, self.window_tokens)))

    def progress_callback(self, wanted: int) -> Callable[[int], None]:
        """Shows how many of the wanted tokens are harvested: at once that it is none, since a pool is tokenised first."""
        def show(rows: int) -> None:
            self.line(f"reading the text: {min(rows, wanted):,} of {wanted:,} tokens")

        show(0)
        return show

    def window_by_micro_batch(self, rows: int) -> Generator[int, None, Rows]:
        """`window` as a generator: yields the number of rows harvested so far after each micro-batch."""
        blocks, _ = self.next_blocks(tokens_wanted(rows, self.context, self.window_tokens, self.lm.tokenizer))
        return (yield from self._harvest(blocks, self.points))

    def read(
        self, tokens: Int[Tensor, "blocks context"], points: Sequence[HookPoint] | None = None,
        on_progress: Callable[[int], None] = lambda rows: None,
    ) -> Rows:
        """Activations at the ordinary positions of the blocks; each rank harvests a part of them and returns all."""
        return drain(self._harvest(tokens, self.points if points is None else points), on_progress)

    def _harvest(self, tokens: Int[Tensor, "blocks context"], points: Sequence[HookPoint]) -> Generator[int, None, Rows]:
        order = by_length(tokens, self.forward_tokens)
        parts = micro_batches(tokens[order], self.forward_tokens)
        of_blocks = [ordinary_positions(part, self.lm.tokenizer).sum(1).tolist() for part in parts]
        rows = list(map(sum, of_blocks))
        mine = range(distributed.rank(), len(parts), distributed.world_size()) or range(1)  # without a part: one for its shape
        harvested = {}
        for i in mine:
            harvested[i] = harvest(self.lm, points, parts[i])
            yield sum(rows[: i + 1])
        gathered = distributed.all_gather_parts(harvested, rows)
        return {point: _in_order_of_text(x, of_blocks, order) for point, x in gathered.items()}

    def next_blocks(self, wanted: int) -> tuple[Int[Tensor, "taken context"], list[tuple[int, int]]]:
        """The next blocks with `wanted` ordinary tokens, fewer at the end of the text, and for each the (pool, position) of
        the block after it. Raises TextEnded where there is none."""
        taken, ends = [], []
        while wanted > 0 and (pool := self._current_pool(required=not taken)) is not None:
            part = pool[self.position :]
            found = ordinary_positions(part, self.lm.tokenizer).sum(1).cumsum(0)
            part = part[: int((found < wanted).sum()) + 1]
            taken.append(part)
            wanted -= int(found[len(part) - 1])
            ends += [(self.pool_number, self.position + i) for i in range(1, len(part) + 1)]
            self.position += len(part)
            if self.position == len(pool):
                self.pool_number, self.position, self._pool = self.pool_number + 1, 0, None
                ends[-1] = (self.pool_number, 0)
        return torch.cat(taken), ends

    def _current_pool(self, required: bool) -> Int[Tensor, "blocks context"] | None:
        """The blocks at the position; None at the end of the text, or TextEnded if they are required."""
        if self._pool is None:
            try:
                self._pool = self._read_pool(self.pool_number)
            except TextEnded:
                if required:
                    raise
        return self._pool

    def _read_pool(self, number: int) -> Int[Tensor, "blocks context"]:
        if self._documents is None:
            self._documents = self.corpus.documents("train", start=number * self.documents_per_pool)
        documents = list(self._next_documents(self._documents, self.documents_per_pool))
        pool = torch.stack(list(blocks(documents, self.lm.tokenizer, self.context)))
        order = torch.randperm(len(pool), generator=generator(self.seed, POOL, number))
        if (parts := parts_of(documents, self.lm.tokenizer, self.context)) is not None:
            order = evenly(order, parts, ordinary_positions(pool, self.lm.tokenizer).sum(1))
        return pool[order]

    def _next_documents(self, documents: Iterator[str], count: int) -> Iterator[str]:
        """The next documents, fewer at the end of the text. Raises TextEnded where there is none."""
        for taken in range(count):
            try:
                yield next(documents)
            except TextEnded:
                self._documents = None  # a finished iterator would raise StopIteration, a new one raises TextEnded
                if taken == 0:
                    raise
                return

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool_number, "position": self.position, "forward_tokens": self.forward_tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (kept := state.get("forward_tokens", self.forward_tokens)) != self.forward_tokens:
            log.info("resuming with activations.forward_tokens=%s, so that results stay bitwise the same", kept)
            self.forward_tokens = kept
        self.pool_number, self.position = state["pool"], state["position"]
        self._documents: Iterator[str] | None = None
        self._pool: Int[Tensor, "blocks context"] | None = None


def _in_order_of_text(
    parts: Sequence[Float[Tensor, "_ d_in"]], of_blocks: Sequence[Sequence[int]], order: Int[Tensor, " blocks"]
) -> Float[Tensor, "rows d_in"]:
    """The rows of all micro-batches, whose blocks, with so many rows each, were taken in this order."""
    blocks = [block for part, counts in zip(parts, of_blocks, strict=True) for block in part.split(counts)]
    return torch.cat([blocks[i] for i in order.argsort().tolist()])


def harvest(lm: LanguageModel, points: Sequence[HookPoint], tokens: Int[Tensor, "batch context"]) -> Rows:
    """Activations at the ordinary positions of the blocks, in the order of the text, without waiting for the device."""
    device = next(lm.module.parameters()).device
    keep = ordinary_positions(tokens, lm.tokenizer).flatten().nonzero().squeeze(1)
    mask = None if lm.tokenizer.causal else (tokens != PADDING).to(device, non_blocking=True)
    keep, tokens = (x.to(device, non_blocking=True) for x in (keep, lm_input(tokens)))
    return {point: x.flatten(0, 1).index_select(0, keep) for point, x in read(lm.module, points, tokens, mask).items()}
