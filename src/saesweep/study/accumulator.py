"""What is kept of one SAE on one half while the text is read: sums and small samples per latent, and lists that grow.

Parts that have read different documents merge into the whole, bit for bit: counts add, the strongest activations and those
of smallest key are chosen again among both. About 2.7 kB per latent and half; the lists go to disk with every save.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32, Int64
from torch import Tensor

from saesweep.arch.latents import Latents
from saesweep.arch.ops.entries import starts_of
from saesweep.arch.ops.kernels import sort_by_column
from saesweep.study import kernels
from saesweep.study.arrays import Arrays
from saesweep.study.hits import BINS, SAMPLE, TOP
from saesweep.study.keys import of_latents

SHAPES: dict[str, tuple[type, tuple[int, ...]]] = {  # of the mergeable arrays, for each latent
    "fires": (np.int64, ()), "documents": (np.int64, ()), "histogram": (np.uint32, (BINS,)),
    "top.values": (np.float32, (TOP,)), "top.positions": (np.int64, (TOP,)),
    "sample.keys": (np.uint64, (SAMPLE,)), "sample.values": (np.float32, (SAMPLE,)), "sample.positions": (np.int64, (SAMPLE,)),
}
BYTES = sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in SHAPES.values())  # per latent
EMPTY = {"top.positions": -1, "sample.positions": -1, "sample.keys": kernels.NO_KEY}
SMALLEST = np.finfo(np.float32).smallest_subnormal  # of a value above 0, which division must not make 0
LISTS: dict[str, type] = {  # what grows
    "sinks": np.int64, "hits.latents": np.int32, "hits.positions": np.int64, "hits.values": np.float32,
    "dense_hits.latents": np.int32, "dense_hits.positions": np.int64, "dense_hits.values": np.float32,
}


class Active(NamedTuple):
    """The active latents of some tokens, token after token."""

    starts: Int64[np.ndarray, " rows_1"]
    rows: Int64[np.ndarray, " n"]
    columns: Int64[np.ndarray, " n"]
    values: Float32[np.ndarray, " n"]  # in training units


def listed(f: Latents, scale: float) -> Active:
    """The latents above 0, as `active` has them; within a token in any order."""
    if f.entries is None:
        return active(f.values, scale)
    starts, rows, columns, values = (x.numpy() for x in (f.entries.row_starts, f.entries.rows, f.entries.columns, f.values))
    kept = values > 0
    if not kept.all():
        starts = np.concatenate([[0], np.cumsum(kept)])[starts]
        rows, columns, values = rows[kept], columns[kept], values[kept]
    return Active(starts, rows, columns, np.maximum(values / np.float32(scale), SMALLEST))


def active(f: Float[Tensor, "rows d_sae"], scale: float) -> Active:
    """The latents above 0, their values divided by `scale`. On any device; the result is on the CPU."""
    if f.device.type == "cpu":
        dense, counts = f.float().contiguous().numpy(), np.empty(len(f), np.int64)
        kernels.count_active(dense, counts)
        starts = starts_of(torch.from_numpy(counts)).numpy()
        rows, columns, values = (np.empty(starts[-1], kind) for kind in (np.int64, np.int64, np.float32))
        kernels.list_active(dense, starts, rows, columns, values)
    else:
        where = (f > 0).nonzero(as_tuple=True)
        rows, columns, values = (x.cpu().numpy() for x in (*where, f[where].float()))
        starts = np.searchsorted(rows, np.arange(len(f) + 1))
    return Active(starts, rows, columns, np.maximum(values / np.float32(scale), SMALLEST))


class Accumulator:
    """kept: the latents all of whose activations are kept. dense_tokens: until which position those of all latents are."""

    def __init__(self, seed: int, kept: Bool[np.ndarray, " d_sae"], dense_tokens: int) -> None:
        self.kept, self.dense_tokens, self.of_latents = kept, dense_tokens, of_latents(seed, np.arange(len(kept)))
        self.arrays: Arrays = {
            name: np.full((len(kept), *shape), EMPTY.get(name, 0), kind) for name, (kind, shape) in SHAPES.items()
        }
        self._last = np.full(len(kept), -1, np.int32)
        self.clear_lists()

    def clear_lists(self) -> None:
        self._lists: dict[str, list[np.ndarray]] = {name: [] for name in LISTS}
        self.listed = 0  # entries

    def lists(self) -> Arrays:
        """What has been added to the lists since they were cleared."""
        return {name: np.concatenate([np.empty(0, LISTS[name]), *parts]) for name, parts in self._lists.items()}

    def add_sinks(self, positions: Int64[np.ndarray, " sinks"]) -> None:
        self._lists["sinks"].append(positions)

    def add(self, found: Active, positions: Int64[np.ndarray, " rows"], documents: Int32[np.ndarray, " rows"]) -> None:
        """Active latents of the tokens at these positions; all of a document come before those of the next."""
        starts, order = np.empty(len(self.kept) + 1, np.int64), np.empty(len(found.columns), np.int64)
        sort_by_column(found.columns, starts, order)
        kernels.add(starts, order, found.rows, found.values, positions, documents, self.of_latents, self._last,
                    *self.arrays.values())
        self._list("hits", found, positions, self.kept[found.columns])
        if positions[0] < self.dense_tokens:
            self._list("dense_hits", found, positions, positions[found.rows] < self.dense_tokens)

    def _list(self, name: str, found: Active, positions: Int64[np.ndarray, " rows"], which: Bool[np.ndarray, " n"]) -> None:
        self._lists[f"{name}.latents"].append(found.columns[which].astype(np.int32))
        self._lists[f"{name}.positions"].append(positions[found.rows[which]])
        self._lists[f"{name}.values"].append(found.values[which])
        self.listed += int(which.sum())

    def merge(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add the arrays of a part that has read other documents."""
        kernels.merge(*self.arrays.values(), *(np.asarray(arrays[name]) for name in SHAPES))
