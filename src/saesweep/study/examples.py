"""The examples of a latent in one half, in groups: what pages, judges and raters show.

    top          the strongest activations, strongest first
    decile       of the uniform sample sorted by value, as many from each tenth; weakest first
    interval     as many from each fifth of [0, maximum]; weakest first
    random       positions of the pool in whose window the latent is silent throughout
    same_token   those whose window also holds one of the COMMON commonest tokens of the latent's top on fit
    neighbour    from the sample of another latent, where this one is silent throughout

An example is a position; its window is TextHalf.window. All groups of a latent together have one example per block, so that no
two windows share a token, and a group has at most PER_DOCUMENT per document. A token with fewer than LEFT tokens before it in
its block is no example. Whether a latent is silent is known only where its activations are kept on the whole half.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from saesweep.study.hits import AFTER, BEFORE, LEFT, Half, TextHalf
from saesweep.study.keys import keys

T = TypeVar("T")
COMMON, PER_DOCUMENT = 5, 3
PARTS = {"decile": 10, "interval": 5}
ASKED: Mapping[str, int] = {"top": 20, "decile": 50, "interval": 25, "random": 25, "same_token": 25}  # in all parts together


class Group(NamedTuple):
    positions: Int64[np.ndarray, " n"]
    part: Int64[np.ndarray, " n"]  # number of the decile or interval; 0 in other groups
    asked: int

    @property
    def insufficient(self) -> bool:
        """Fewer than half of what was asked for."""
        return 2 * len(self.positions) < self.asked


class Places:
    """Where the blocks and windows of a half begin and end, for all SAEs."""

    def __init__(self, text: TextHalf):
        self.text = text
        edges = np.flatnonzero(np.diff(text.block)) + 1
        self.starts = np.concatenate([[0], edges])
        self.ends = np.concatenate([edges, [len(text.tokens)]])

    def bounds(self, positions: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """First token of each window, and the first after it."""
        block = np.searchsorted(self.starts, positions, side="right") - 1
        return np.maximum(positions - BEFORE, self.starts[block]), np.minimum(positions + AFTER + 1, self.ends[block])

    def left(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """How many tokens stand before each in its block."""
        return positions - self.starts[np.searchsorted(self.starts, positions, side="right") - 1]

    @cached_property
    def pool(self) -> Int64[np.ndarray, " pool"]:
        return self.text.pool[self.left(self.text.pool) >= LEFT]

    def none_in(self, marked: Int64[np.ndarray, " marked"], positions: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whose windows hold none of some positions, given in ascending order."""
        first, last = self.bounds(positions)
        return np.searchsorted(marked, first) == np.searchsorted(marked, last)


def choose(
    places: Places, half: Half, latent: int, tokens: Int64[np.ndarray, " common"], asked: Mapping[str, int] = ASKED,
    neighbour: int | None = None,
) -> dict[str, Group]:
    """The groups that are asked for, of which earlier ones have the first choice. tokens: of `common_tokens`.

    neighbour: the latent of the most similar decoder row.
    """
    candidates, blocks = _Candidates(places, half, latent, tokens, neighbour), set[int]()
    return {name: _group(places, getattr(candidates, name)(), count, PARTS.get(name, 1), blocks)
            for name, count in asked.items()}


def common_tokens(fit: Half, latent: int) -> Int64[np.ndarray, " common"]:
    """The commonest tokens of the strongest activations on fit."""
    positions = fit.top.positions[latent]
    ids, counts = np.unique(fit.text.tokens[positions[positions >= 0]], return_counts=True)
    return ids[np.argsort(-counts, kind="stable")[:COMMON]].astype(np.int64)


Parts = Iterable[Int64[np.ndarray, " _"]]  # of each part the candidates, in the order in which they are taken


def _group(places: Places, parts: Parts, asked: int, count: int, blocks: set[int]) -> Group:
    """blocks: those that have an example, to which those of this group are added."""
    text, documents = places.text, Counter[int]()
    positions, part = list[int](), list[int]()
    for number, candidates in enumerate(parts):
        full = len(positions) + asked * (number + 1) // count - asked * number // count
        for position in candidates[places.left(candidates) >= LEFT].tolist():
            if len(positions) == full:
                break
            block, document = int(text.block[position]), int(text.document[position])
            if block not in blocks and documents[document] < PER_DOCUMENT:
                blocks.add(block)
                documents[document] += 1
                positions.append(position)
                part.append(number)
    return Group(np.array(positions, np.int64), np.array(part, np.int64), asked)


class _Candidates:
    """Of each group the positions that may be taken."""

    def __init__(
        self, places: Places, half: Half, latent: int, tokens: Int64[np.ndarray, " common"], neighbour: int | None
    ):
        self.places, self.half, self.latent, self.tokens, self.other = places, half, latent, tokens, neighbour
        try:
            self.hits, self.values = half.hits.of(latent)
            self.kept = True
        except KeyError:
            self.hits, self.values = _known(half.sample.positions[latent], half.sample.values[latent])
            self.kept = False

    def top(self) -> Parts:
        if self.kept:
            return [self.hits[np.lexsort((self.hits, -self.values))]]
        return [_known(self.half.top.positions[self.latent], self.half.top.values[self.latent])[0]]

    def decile(self) -> Parts:
        positions, values = _known(self.half.sample.positions[self.latent], self.half.sample.values[self.latent])
        ranks = np.empty(len(values), np.int64)
        ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
        part = ranks * PARTS["decile"] // max(len(values), 1)
        return [positions[part == number] for number in range(PARTS["decile"])]  # within a part by ascending key

    def interval(self) -> Parts:
        largest = max(float(self.half.top.values[self.latent, 0]), 1e-30)
        part = np.clip((PARTS["interval"] * self.values / largest).astype(np.int64), 0, PARTS["interval"] - 1)
        order = np.argsort(keys(0, np.array([self.latent]), self.hits), kind="stable")
        return [self.hits[order][part[order] == number] for number in range(PARTS["interval"])]

    def random(self) -> Parts:
        return [self._silent(self.places.pool)]

    def same_token(self) -> Parts:
        there = np.flatnonzero(np.isin(self.half.text.tokens, self.tokens))
        pool = self.places.pool
        return [self._silent(pool[~self.places.none_in(there, pool)])]

    def neighbour(self) -> Parts:
        return [] if self.other is None else [self._silent(_known(self.half.sample.positions[self.other])[0])]

    def _silent(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " silent"]:
        return positions[self.places.none_in(self.hits, positions)] if self.kept else positions[:0]


def _known(positions: np.ndarray, *more: np.ndarray) -> list[np.ndarray]:
    return [one[positions >= 0] for one in (positions, *more)]


def evenly(several: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, spread over the whole list."""
    if len(several) <= count:
        return list(several)
    return [several[int(n)] for n in np.linspace(0, len(several) - 1, count).round()]
