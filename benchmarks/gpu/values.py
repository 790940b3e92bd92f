"""Values of the operations against plain PyTorch at real sizes, and their time.

Compared are the first and the last rows (of the batch or of the matrices), where a wrong offset would show. An entry is
missing where plain PyTorch chooses it and we do not; `by` is how far the farthest one lies above the bound, in units of
|u| |w|. Bytes are counted, each input read and each output written once.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import timing
from benchmarks.gpu.section import Section
from saesweep.arch.ops import ops_for, plain
from saesweep.arch.ops.entries import Adam, Chosen, Sums

NUMBERS = Adam(clip=0.5, step_size=0.01, beta1=0.875, beta2=1 - 2.0**-10, unbias=2.0, eps=1e-8)  # exact, also 1 - beta2
FLOAT = 4  # bytes


def run(section: Section) -> None:
    section.each((_title(shape), partial(_check_shape, section, shape)) for shape in section.sizes["shapes"])


def _title(shape: dict[str, int]) -> str:
    return "batch {batch:,}, d_in {d_in:,}, d_sae {d_sae:,}, k {k}".format(**shape)


def _check_shape(section: Section, shape: dict[str, int]) -> None:
    batch, d_in, d_sae, k = (shape[key] for key in ("batch", "d_in", "d_sae", "k"))
    needed = 6 * FLOAT * d_in * d_sae + FLOAT * batch * d_sae
    if needed > timing.free_bytes(section.device):
        section.note(f"{_title(shape)}: left out, it takes {needed / 1e9:,.0f} GB")
        return
    torch.manual_seed(0)
    u = torch.randn(batch, d_in, device=section.device) / math.sqrt(d_in)
    W = torch.randn(d_sae, d_in, device=section.device)
    W.div_(W.norm(dim=1, keepdim=True))
    Check(section, _title(shape), u, W).all(k)


class Check:
    """The operations on one batch u [batch, d_in] and one matrix W [d_sae, d_in]; a row of the table each."""

    def __init__(self, section: Section, table: str, u: Tensor, W: Tensor):
        self.section, self.table, self.u, self.W, self.ops = section, table, u, W, ops_for(u)
        self.b_enc, self.b_dec = W.new_zeros(len(W)), u.mean(0)

    def all(self, k: int) -> None:
        bound = statistics.NormalDist(0, 1 / math.sqrt(self.u.shape[1])).inv_cdf(1 - k / len(self.W))  # k of a row exceed it
        spread = torch.linspace(0.99, 1.01, len(self.W), device=self.W.device)
        self.choice("choose, above a bound", bound * spread, 0)
        chosen = self.choice("choose, the k largest", None, k)
        if chosen is not None:
            self.by_row(chosen)
            self.by_column(chosen)

    def choice(self, name: str, above: Tensor | None, k: int) -> Chosen | None:
        call = partial(self.ops.choose, self.u, self.W, self.b_enc, above, k)
        found = call()
        if found is None:
            self.section.note(f"{self.table}: {name}: no list is made")
            return None
        missing, wanted, listed, by, error = 0, 0, 0, 0.0, 0.0
        for start, end in self._ends(len(self.u)):
            one = compare_choice(_rows(found, start, end), plain.choose(self.u[start:end], self.W, self.b_enc, above, k), above,
                                 len(self.W))
            missing, wanted, listed = missing + one[0], wanted + one[1], listed + one[2]
            by, error = max(by, one[3]), max(error, one[4])
        good = missing <= self.section.sizes["missing"] * wanted and error < self.section.sizes["tolerance"]
        self._row(name, call, error, good, flop=2 * self.u.numel() * len(self.W), entries=wanted, missing=missing, by=by,
                  listed=listed / wanted)
        return found

    def by_row(self, chosen: Chosen) -> None:
        starts, rows, columns, values = chosen
        call = partial(self.ops.reconstruct, starts, rows, columns, values, self.W, self.b_dec, self.u)
        found, pairs = call(), []
        for start, end in self._ends(len(self.u)):
            of_rows, entries = _rows(chosen, start, end), slice(int(starts[start]), int(starts[end]))
            wanted = plain.reconstruct(*of_rows, self.W, self.b_dec, self.u[start:end])
            pairs += zip((found[0][start:end], found[1][start:end], found[2][entries]), wanted, strict=True)
        read = len(values) * self.W.shape[1] + 2 * self.u.numel()
        self._sum("reconstruct", call, pairs, FLOAT * read)
        self.residual = found[0]

    def by_column(self, chosen: Chosen) -> None:
        _, rows, columns, values = chosen
        sums = Sums(*plain.sort_by_column(columns, len(self.W)), rows, values, self.residual)
        gathered, matrix, ends = len(rows) * self.W.shape[1], self.W.numel(), self._ends(len(self.W))
        call = partial(self.ops.sum_columns, *sums)
        grad = call()
        pairs = [(grad[a:b], plain.sum_columns(*_columns(sums, a, b))) for a, b in ends]
        self._sum("sum_columns", call, pairs, FLOAT * (gathered + matrix))
        for name, given, unit, read in (("a list", sums, True, gathered), ("a matrix", grad, False, matrix)):
            self.norms(f"grad_and_norms of {name}", given, unit, FLOAT * (read + matrix))
            self.update(f"adam with {name}", given, unit, FLOAT * (read + 6 * matrix))

    def norms(self, name: str, grad: Tensor | Sums, unit: bool, read: int) -> None:
        call, pairs = partial(self.ops.grad_and_norms, grad, self.W, unit), []
        formed, squares = call()
        for a, b in self._ends(len(self.W)):
            wanted = plain.grad_and_norms(_columns(grad, a, b), self.W[a:b], unit)
            pairs += zip((formed[a:b], squares[a:b]), wanted, strict=True)
        self._sum(name, call, pairs, read)

    def update(self, name: str, grad: Tensor | Sums, unit: bool, read: int) -> None:
        """Of W, in place."""
        state, ends = (self.W, torch.zeros_like(self.W), torch.zeros_like(self.W)), self._ends(len(self.W))
        wanted = [[x[a:b].clone() for x in state] for a, b in ends]
        for (a, b), (weight, mean, square) in zip(ends, wanted, strict=True):
            plain.adam(weight, _columns(grad, a, b), mean, square, NUMBERS, unit)
        call, pairs = partial(self.ops.adam, self.W, grad, *state[1:], NUMBERS, unit), []
        call()
        for (a, b), parts in zip(ends, wanted, strict=True):
            pairs += [(x[a:b].clone(), part) for x, part in zip(state, parts, strict=True)]
        self._sum(name, call, pairs, read)

    def _ends(self, count: int) -> list[tuple[int, int]]:
        most = self.section.sizes["compared"]
        return [(0, most), (count - most, count)] if count > 2 * most else [(0, count)]

    def _sum(self, name: str, call: Callable, pairs: Iterable[tuple[Tensor, Tensor]], read: int) -> None:
        error = max(relative(found, wanted) for found, wanted in pairs)
        self._row(name, call, error, error < self.section.sizes["tolerance"], read=read)

    def _row(self, name: str, call: Callable, error: float, good: bool, flop: int = 0, read: int = 0, **more: Any) -> None:
        sizes = self.section.sizes
        ms = statistics.median(timing.milliseconds(call, self.section.device, sizes["rounds"], sizes["seconds"]))
        rate = {"TFLOP/s": flop / ms / 1e9 if flop else None, "GB/s": read / ms / 1e6 if read else None}
        self.section.row(self.table, operation=name, ms=ms, **rate, error=error, good=good, **more)
        if not good:
            self.section.fail(f"{self.table}: {name} differs from plain PyTorch")


def relative(found: Tensor, wanted: Tensor) -> float:
    """||found - wanted|| / ||wanted||, in fp64; NaN is infinite."""
    error = float((found.double() - wanted).norm() / wanted.double().norm().clamp(min=1e-30))
    return math.inf if math.isnan(error) else error


def compare_choice(found: Sequence[Tensor], wanted: Chosen | None, above: Tensor | None, d_sae: int) -> tuple:
    """Of some rows: missing entries, wanted entries, listed entries, by how much a missing one exceeds its bound at most, and
    the relative error of the values that both have."""
    assert wanted is not None, "plain PyTorch makes a list where the operation does"
    (starts, rows, columns, values), (_, in_rows, in_columns, in_values) = found, wanted
    listed, kept = len(rows), values != 0  # an entry whose value is 0 is listed, but not kept
    rows, columns, values = rows[kept], columns[kept], values[kept]
    keys, order = (rows * d_sae + columns).sort()
    wanted_keys = in_rows * d_sae + in_columns
    if len(keys) == 0:
        return len(wanted_keys), len(wanted_keys), listed, math.inf, math.inf
    at = torch.searchsorted(keys, wanted_keys).clamp(max=len(keys) - 1)
    there = keys[at] == wanted_keys
    if above is None:
        smallest = values.new_full((len(starts) - 1,), math.inf).scatter_reduce(0, rows, values, "amin")
        excess = in_values - smallest[in_rows]
    else:
        excess = in_values - above[in_columns]
    by = float(excess[~there].max()) if not there.all() else 0.0
    return int((~there).sum()), len(wanted_keys), listed, by, relative(values[order][at][there], in_values[there])


def _rows(chosen: Chosen, start: int, end: int) -> tuple[Tensor, ...]:
    """The part of a list that belongs to rows start to end, with rows counted from start."""
    starts, rows, columns, values = chosen
    part = slice(int(starts[start]), int(starts[end]))
    return starts[start : end + 1] - starts[start], rows[part] - start, columns[part], values[part]


def _columns(grad: Tensor | Sums, start: int, end: int) -> Tensor | Sums:
    """A gradient of rows start to end of a matrix."""
    if isinstance(grad, Tensor):
        return grad[start:end]
    entries, starts = grad.order[int(grad.starts[start]) : int(grad.starts[end])], grad.starts[start : end + 1]
    order = torch.arange(len(entries), device=entries.device)
    return Sums(order, starts - starts[0], grad.rows[entries], grad.weights[entries], grad.matrix)
