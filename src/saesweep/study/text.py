"""The tokens of both halves of a text: made of its documents, kept in one file beside the sweep, cut into portions.

    <sweep>/study/text-<digest>.safetensors       tokens, documents and pool of both halves

A portion is the unit of the work: some consecutive documents. What is computed from a portion depends on nothing else, so
portions can be read in any order, by any rank, before or after a restart.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int32, Int64, UInt8
from torch import Tensor

from saesweep.data.text import PADDING
from saesweep.lm.tokenizer import Tokenizer
from saesweep.study import arrays
from saesweep.study.hits import HALVES, LEFT, HalfName, TextHalf
from saesweep.study.keys import keys
from saesweep.study.split import Document

POOL = 10_000  # positions of the pool
POOL_LATENT = np.array([2**63], np.uint64)  # whose keys the pool has: no latent has this number
PORTION = 8192  # positions; a portion ends with the document that reaches them
Text = Mapping[HalfName, TextHalf]


class Portion(NamedTuple):
    half: HalfName
    start: int  # positions
    stop: int


def text_half(documents: Sequence[Document], tokenizer: Tokenizer, context: int, seed: int) -> TextHalf:
    """Documents cut into blocks of `context` tokens as in training (data/text.py), one after the other, without padding."""
    parts, blocks = [], 0
    for number, document in enumerate(documents):
        tokens, index, block = _blocks(document.tokens, tokenizer.bos, context)
        parts.append((tokens, np.full(len(tokens), number, np.int32), index, block + blocks))
        blocks += int(block[-1]) + 1
    tokens, document, index, block = (np.concatenate(column).astype(np.int32) for column in zip(*parts, strict=True))
    ordinary = ~np.isin(tokens, sorted(tokenizer.special))
    texts = [document.text for document in documents]
    return TextHalf(texts, tokens, document, index, block, ordinary, pool_of(block, ordinary, seed))


def _blocks(ids: Int32[np.ndarray, " tokens"], bos: int | None, context: int) -> tuple[np.ndarray, ...]:
    """The tokens of a document with BOS before each block, their numbers in the document and those of their blocks."""
    index = np.arange(len(ids))
    size = context - (bos is not None)
    if bos is None:
        return ids, index, index // size
    starts = index[::size]
    numbers = np.arange(len(starts))
    return np.insert(ids, starts, bos), np.insert(index, starts, -1), np.insert(index // size, starts, numbers)


def pool_of(block: Int32[np.ndarray, " tokens"], ordinary: np.ndarray, seed: int) -> Int64[np.ndarray, " pool"]:
    """The ordinary positions of smallest key, one per block and not at its beginning, in the order of their keys."""
    positions = np.arange(len(block))
    able = positions[ordinary & (positions - np.searchsorted(block, block) >= LEFT)]
    found = keys(seed, POOL_LATENT, able)
    order = np.argsort(found, kind="stable")
    _, first = np.unique(block[able[order]], return_index=True)  # of each block the smallest key
    return able[order[np.sort(first)]][:POOL]


def portions(text: Text) -> list[Portion]:
    """Those of the fit half, then those of the test half."""
    found = []
    for half in HALVES:
        start, starts = 0, np.flatnonzero(np.diff(text[half].document, append=-1)) + 1  # where documents end
        for stop in map(int, starts):
            if stop - start >= PORTION or stop == len(text[half].tokens):
                found.append(Portion(half, start, stop))
                start = stop
    return found


def some_blocks(text: Text, half: HalfName, tokens: int) -> list[Portion]:
    """Evenly spaced blocks of a half (TextHalf.some_blocks)."""
    return [Portion(half, one.start, one.stop) for one in text[half].some_blocks(tokens)]


def blocks_of(half: TextHalf, portion: Portion, context: int) -> Int[Tensor, "blocks context"]:
    """The blocks of a portion, padded with -1."""
    mine = slice(portion.start, portion.stop)
    block = half.block[mine] - half.block[portion.start]
    column = np.arange(len(block)) - np.searchsorted(block, block)
    tokens = np.full((int(block[-1]) + 1, context), PADDING, np.int64)
    tokens[block, column] = half.tokens[mine]
    return torch.from_numpy(tokens)


class Texts(Sequence[str]):
    """Documents as UTF-8, each decoded when it is asked for."""

    def __init__(self, content: UInt8[np.ndarray, " bytes"], ends: Int64[np.ndarray, " documents"]) -> None:
        self._content, self._ends = content, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        number = range(len(self))[number]
        start = int(self._ends[number - 1]) if number else 0
        return self._content[start : int(self._ends[number])].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))


COLUMNS = ("tokens", "document", "index", "block", "ordinary", "pool")


def content(text: Text) -> arrays.Arrays:
    """The arrays of a text's file."""
    found = {}
    for half in HALVES:
        documents = [document.encode("utf-8", "surrogatepass") for document in text[half].documents]
        found |= {f"{half}.{name}": getattr(text[half], name) for name in COLUMNS}
        found[f"{half}.utf8"] = np.frombuffer(b"".join(documents), np.uint8)
        found[f"{half}.ends"] = np.cumsum([len(document) for document in documents], dtype=np.int64)
    return found


def digest(found: arrays.Arrays) -> str:
    """16 hex digits that identify a text: its tokens, blocks, documents and pool."""
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(name.encode() + np.ascontiguousarray(found[name]).tobytes())
    return whole.hexdigest()[:16]


def file_of(sweep: Path, name: str) -> Path:
    return sweep / "study" / f"text-{name}.safetensors"


def read(file: Path) -> dict[HalfName, TextHalf]:
    """Raises UsageError where the file is damaged."""
    found, _ = arrays.read(file)
    return {
        half: TextHalf(Texts(found[f"{half}.utf8"], found[f"{half}.ends"]), *(found[f"{half}.{name}"] for name in COLUMNS))
        for half in HALVES
    }
