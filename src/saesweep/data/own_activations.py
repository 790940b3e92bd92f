"""Windows of activations of one's own, which no language model computes: from a folder, or from an iterator.

    folder      the runs of the training documents in an order drawn from stream_seed, anew in each pass (activation_files.py)
    iterator    the rows of its training documents in its own order; a training that resumes takes those before it again

A window is the next rows, at most activations.window; their order within it is drawn as that of every stream.
"""
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saesweep.config.instantiate import locate
from saesweep.config.settings import passes, unique_tokens
from saesweep.data import activation_split
from saesweep.data.activation_files import ActivationFiles, Runs
from saesweep.data.activation_split import TRAINING, numbered, require_held_out, sides, sides_of_all
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.lm.hooks import Rows as OfPoints
from saesweep.runtime.rng import HELD_OUT, POOL, generator

log = logging.getLogger(__name__)
KEY = "model.source.activations.iterator"


class RowsEnded(UsageError):
    """All training rows are read, and model.source.activations.repeat is false."""

    def __init__(self, where: str):
        super().__init__(f"{where} was read to its end before training was finished: lower tokens, or set "
                         "model.source.activations.repeat=true")


class OwnFiles:
    """The rows of a folder. `digest`: of their content; `count`: of the training rows."""

    PIECE = 256  # runs read together

    def __init__(self, files: ActivationFiles, share: float, stream_seed: int):
        self.files, self.seed, self.digest, self.header = files, stream_seed, files.digest, files.header
        self._side = sides_of_all(files.runs.document, share, stream_seed)
        self._training = files.runs.at(self._side == TRAINING)
        self.count = int(self._training.rows.sum())

    def training(self, number: int, row: int) -> Iterator[Float[Tensor, "rows d_in"]]:
        """The training rows of a pass from number `row`, in pieces; the same each time."""
        order = torch.randperm(len(self._training.rows), generator=generator(self.seed, POOL, number)).numpy()
        rows = self._training.rows[order]
        before = int((rows.cumsum() <= row).sum())  # runs
        parts = np.split(order[before:], range(self.PIECE, len(order) - before, self.PIECE))
        return _after((self.files.read(self._training.at(part)) for part in parts), row - int(rows[:before].sum()))

    def held_out(self, purpose: int, tokens: int) -> activation_split.Rows:
        """So many rows of the documents of a purpose: runs drawn at random, the last one cut. Raises UsageError for too few."""
        there: Runs = self.files.runs.at(self._side == purpose)
        require_held_out(purpose, tokens, int(there.rows.sum()))
        order = torch.randperm(len(there.rows), generator=generator(self.seed, HELD_OUT, purpose)).numpy()
        drawn = there.at(order).until(tokens)
        return numbered(self.files.read(drawn), drawn.document.repeat(drawn.rows))


class OwnIterator:
    """The rows of a callable that returns an iterator of `rows` [n, d_in] or of `(rows, documents)`, the latter [n] integers.

    It is called anew for each pass and for each set of held-out rows, and must give the same each time.
    """

    count = header = None  # are not known

    def __init__(self, target: str, arguments: Mapping[str, Any], *, share: float, run: int, stream_seed: int):
        self.target, self.arguments, self.share, self.run, self.seed = target, arguments, share, run, stream_seed
        self._call = locate(target, KEY)

    @cached_property
    def digest(self) -> str:
        """Of the first rows."""
        x, documents = next(self._parts())
        return hashlib.sha256(x.contiguous().view(torch.uint8).numpy().tobytes() + documents.tobytes()).hexdigest()

    def training(self, number: int, row: int) -> Iterator[Float[Tensor, "rows d_in"]]:
        """As those of a folder; every pass has the same order."""
        return _after((x for x, _ in self._of(TRAINING)), row)

    def held_out(self, purpose: int, tokens: int) -> activation_split.Rows:
        """The first rows of the documents of a purpose."""
        found, documents, count = list[Tensor](), list[np.ndarray](), 0
        for x, numbers in self._of(purpose):
            found.append(x)
            documents.append(numbers)
            count += len(x)
            if count >= tokens:
                break
        require_held_out(purpose, tokens, count)
        return numbered(torch.cat(found)[:tokens], np.concatenate(documents)[:tokens])

    def _of(self, side: int) -> Iterator[tuple[Tensor, Int64[np.ndarray, " rows"]]]:
        for x, documents in self._parts():
            mine = sides(documents, self.share, self.seed) == side
            if mine.any():
                yield x[torch.from_numpy(mine)], documents[mine]

    def _parts(self) -> Iterator[tuple[Tensor, Int64[np.ndarray, " rows"]]]:
        """Every part that the iterator gives, checked."""
        row, d_in = 0, None
        for number, given in enumerate(self._call(**self.arguments)):
            x, documents = given if isinstance(given, tuple) else (given, None)
            where = f"{KEY}={self.target}: its part {number}"
            if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point() or x.shape[1] != (d_in or x.shape[1]):
                found = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
                raise UsageError(f"{where} is {found}; yield floating-point tensors [rows, d_in] of one d_in")
            d_in = x.shape[1]
            numbers = (row + np.arange(len(x))) // self.run if documents is None else np.asarray(documents)
            if numbers.shape != (len(x),) or not np.issubdtype(numbers.dtype, np.integer):
                raise UsageError(f"{where} has documents of {numbers.dtype} {list(numbers.shape)}; yield an integer for each "
                                 f"of its {len(x):,} rows")
            row += len(x)
            yield x.detach().cpu(), numbers.astype(np.int64)
        if not row:
            raise UsageError(f"{KEY}={self.target}: yields no rows; yield tensors [rows, d_in]")


def _after(pieces: Iterable[Tensor], row: int) -> Iterator[Tensor]:
    """The pieces without their first rows."""
    for piece in pieces:
        if row < len(piece):
            yield piece[row:]
        row = max(0, row - len(piece))


Own = OwnFiles | OwnIterator


class OwnSource:
    """Windows of at most `window` rows at one hook point."""

    def __init__(
        self, own: Own, point: HookPoint, *, window: int, repeat: bool, where: str, device: torch.device | str = "cpu",
    ):
        """where: the name of the rows in a message."""
        self.own, self.point, self.rows, self.repeat, self.where, self.device = own, point, window, repeat, where, device
        self.load_state_dict({"pass": 0, "row": 0})

    def window(self, rows: int) -> OfPoints:
        """The next window; fewer rows where no more than `rows` are wanted, or at the end. Raises RowsEnded."""
        left, taken = min(self.rows, rows), list[Tensor]()
        while left > 0 and (piece := self._next_piece(required=not taken)) is not None:
            taken.append(piece[:left])
            self._left = piece[left:] if len(piece) > left else None
            self.row += len(taken[-1])
            left -= len(taken[-1])
        return {self.point: torch.cat(taken).to(self.device)}

    def _next_piece(self, required: bool) -> Tensor | None:
        """None at the end, or RowsEnded if a piece is required."""
        piece = self._left if self._left is not None else next(self._pieces, None)
        if piece is None and self.repeat and self.row:
            self.load_state_dict({"pass": self.number + 1, "row": 0})
            piece = next(self._pieces, None)
        if piece is None and required:
            raise RowsEnded(self.where)
        return piece

    def state_dict(self) -> dict[str, Any]:
        return {"pass": self.number, "row": self.row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.row = state["pass"], state["row"]
        self._pieces, self._left = self.own.training(self.number, self.row), None


def own_of(source: Mapping[str, Any], stream_seed: int, hook_name: str) -> OwnFiles | OwnIterator:
    """The rows of model.source.activations. Raises UsageError where they cannot be read."""
    share, run = source["held_out"], source["run"]
    if source["folder"] is not None:
        return OwnFiles(ActivationFiles(source["folder"], run, hook_name), share, stream_seed)
    return OwnIterator(source["iterator"], source["arguments"], share=share, run=run, stream_seed=stream_seed)


def require_enough_rows(own: Own, job: Mapping[str, Any]) -> None:
    """Raises UsageError where a folder has fewer training rows than the training needs; an iterator's are not counted."""
    batch, window, times = job["batch_tokens"], job["activations"]["window"], passes(job)
    steps, per_window = unique_tokens(job) // batch, max(1, window // batch)
    wanted = steps // per_window * max(window, batch) + steps % per_window * batch
    if own.count is None or own.count >= wanted:
        return
    has = f"model={job['model']['name']} has {own.count:,} training rows, and the training reads {wanted:,}"
    if own.count and job["model"]["source"]["activations"]["repeat"]:
        log.warning(f"{has}: they are read {wanted / own.count:.1f} times")
        return
    most = own.count // max(window, batch) * per_window + own.count % max(window, batch) // batch  # steps
    fix = f"set tokens={most * batch * times} at most, " if most else ""
    raise UsageError(f"{has}: {fix}model.source.activations.repeat=true, or give more")
