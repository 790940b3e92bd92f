"""What one pass over held-out text keeps of each SAE: what scores, pages, ratings and judges read.

The held-out documents are split into two halves: `fit`, from which everything is chosen, and `test`, on which every number
is measured. A position is the number of a token within its half, counted from 0 over the documents one after the other.
A value is a latent's activation in training units (raw units / scale); a latent is silent at exactly 0. Special tokens,
padding and sinks have no activations.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt32

from saesweep.storage import curves
from saesweep.study.keys import sampling_order

HalfName = Literal["fit", "test"]
HALVES: tuple[HalfName, HalfName] = ("fit", "test")
TOP = 20  # strongest activations kept per latent
SAMPLE = 100  # activations kept per latent as a uniform sample
BINS = 128  # of the histogram: bin floor(4 log2 value) + 64, clipped
BEFORE, AFTER = 23, 8  # tokens of a window around its own
LEFT = 8  # a token with fewer tokens before it in its block is no example


@dataclass(frozen=True)
class TextHalf:
    """The tokens of one half, shared by all SAEs of one text and tokenizer."""

    documents: Sequence[str]
    tokens: Int32[np.ndarray, " tokens"]  # ids
    document: Int32[np.ndarray, " tokens"]  # number of its document in `documents`
    index: Int32[np.ndarray, " tokens"]  # number of the token among its document's, without special tokens; -1: BOS
    block: Int32[np.ndarray, " tokens"]  # number of its block in the half; a window does not cross the end of one
    ordinary: Bool[np.ndarray, " tokens"]  # not a special token
    pool: Int64[np.ndarray, " pool"]  # positions drawn uniformly, whose windows show where a latent is silent

    def window(self, position: int) -> slice:
        """Up to BEFORE tokens before a position and AFTER after it, inside its block."""
        first, last = max(position - BEFORE, 0), min(position + AFTER + 1, len(self.tokens))
        same = np.flatnonzero(self.block[first:last] == self.block[position])
        return slice(first + int(same[0]), first + int(same[-1]) + 1)

    def some_blocks(self, tokens: int) -> list[slice]:
        """Evenly spaced blocks with about so many tokens together; all of them where there are fewer."""
        ends = np.flatnonzero(np.diff(self.block, append=-1)) + 1
        count = min(len(ends), -(-tokens * len(ends) // len(self.tokens)))
        starts = np.concatenate([[0], ends[:-1]])
        return [slice(int(starts[i]), int(ends[i])) for i in np.arange(count) * len(ends) // max(count, 1)]

    def dense(self, tokens: int) -> Int64[np.ndarray, " dense"]:
        """The positions of some blocks of all documents, ascending."""
        blocks = self.some_blocks(tokens)
        return np.concatenate([np.empty(0, np.int64), *(np.arange(one.start, one.stop) for one in blocks)])


class Examples(NamedTuple):
    """For each latent the values and positions of some of its activations; 0 and -1 where it has fewer."""

    values: Float32[np.ndarray, "d_sae k"]
    positions: Int64[np.ndarray, "d_sae k"]


@dataclass(frozen=True)
class Hits:
    """All activations of some latents, latent after latent, each in order of position."""

    latents: Int64[np.ndarray, " latents"]  # ascending
    starts: Int64[np.ndarray, " latents+1"]  # where the activations of each begin and end
    positions: Int64[np.ndarray, " hits"]
    values: Float32[np.ndarray, " hits"]

    def of(self, latent: int) -> tuple[Int64[np.ndarray, " fires"], Float32[np.ndarray, " fires"]]:
        """Positions and values of one latent. Raises KeyError where its activations were not kept."""
        at = int(np.searchsorted(self.latents, latent))
        if at == len(self.latents) or self.latents[at] != latent:
            raise KeyError(latent)
        mine = slice(self.starts[at], self.starts[at + 1])
        return self.positions[mine], self.values[mine]


@dataclass(frozen=True)
class Half:
    """The activations of one SAE on one half."""

    text: TextHalf
    sinks: Int64[np.ndarray, " sinks"]  # positions of ordinary tokens that activations.max_norm leaves out
    fires: Int64[np.ndarray, " d_sae"]  # tokens on which each latent is active
    documents: Int64[np.ndarray, " d_sae"]  # documents in which it is
    histogram: UInt32[np.ndarray, "d_sae bins"]
    top: Examples  # the TOP largest, largest first; of equal values the lower position
    sample: Examples  # the SAMPLE of smallest key, smallest key first
    hits: Hits  # on the whole half, of the latents that are first in the sampling order, and of the most frequent ones
    dense_hits: Hits  # of every latent, on the positions `dense`
    dense: Int64[np.ndarray, " dense"]  # ascending

    @property
    def measured(self) -> Bool[np.ndarray, " tokens"]:
        """The tokens that have activations: ordinary ones that are not sinks."""
        counted = self.text.ordinary.copy()
        counted[self.sinks] = False
        return counted

    @property
    def in_dense(self) -> Hits:
        """`dense_hits` with positions counted within `dense`."""
        return replace(self.dense_hits, positions=np.searchsorted(self.dense, self.dense_hits.positions))

    @property
    def frequency(self) -> np.ndarray:
        """Share of the measured tokens on which each latent is active, [d_sae]."""
        return self.fires / max(int(self.measured.sum()), 1)


@dataclass(frozen=True)
class Collected:
    """One SAE, or one control, with its activations on both halves."""

    path: str  # of the job's folder, relative to the sweep's; of a control, that of the SAE it is like
    folder: Path  # of the job; of a control, that of the SAE it is like
    config: dict[str, Any]  # all settings of the job
    metrics: dict[str, Any]  # eval.json of the job
    control: str | None  # None for a trained SAE; random, residual, pca
    fit: Half
    test: Half
    seed: int = 0  # of the study
    sae: int = 0  # the number by which the latents of this SAE are drawn
    file: Path | None = None  # where its activations are kept
    digest: str = ""  # of the text: documents, tokens and blocks of both halves; empty: unknown
    variant: str = ""  # what else tells it from the SAEs of its architecture: `width=4096 lr=0.002`; of a control, as `path`

    @property
    def curve(self) -> str:
        """`topk width=4096 lr=0.002`"""
        return curves.name(self.config["arch"]["name"], self.variant)

    @property
    def order(self) -> np.ndarray:
        """The latents by ascending key(seed, sae, latent): every prefix is a uniform sample, [d_sae]."""
        return sampling_order(self.seed, self.sae, self.d_sae)

    @property
    def d_sae(self) -> int:
        return len(self.test.fires)

    def half(self, name: HalfName) -> Half:
        return self.fit if name == "fit" else self.test
