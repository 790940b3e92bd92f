"""Activations of one's own on disk: a folder with header.json and *.safetensors, in the order of their names.

    header.json    {"d_in": 768, "hook_name": "blocks.9.hook_resid_post", "dtype": "float32", "units": "as computed"}
    activations    of each file, [rows, d_in] in the dtype of the header
    document       of each file or of none, [rows] integers: rows of one number, in whichever file, are one document

Without `document`, each run of so many rows of a file counts as one. Rows are read by such runs, never a whole file.
"""
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import safetensors
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saesweep.config.ranges import Count, OneOf, Text
from saesweep.config.walk import Keys, keys_of, typed
from saesweep.errors import UsageError

KEY, ACTIVATIONS, DOCUMENT = "model.source.activations.folder", "activations", "document"
SAMPLED = 64  # runs of a file whose bytes are part of its digest


class Header(Keys):
    d_in: Count
    hook_name: Text
    dtype: Annotated[str, OneOf("float32", "float16", "bfloat16")]
    units: Text


class Runs(NamedTuple):
    """Consecutive rows of a file, all of one document."""

    file: Int64[np.ndarray, " runs"]
    start: Int64[np.ndarray, " runs"]
    rows: Int64[np.ndarray, " runs"]
    document: Int64[np.ndarray, " runs"]

    def at(self, which: Any) -> "Runs":
        return Runs(*(part[which] for part in self))

    def until(self, rows: int) -> "Runs":
        """The first runs with so many rows together, the last one cut."""
        ends = self.rows.cumsum()
        part = self.at(slice(int((ends < rows).sum()) + 1))
        return part._replace(rows=np.diff(ends[: len(part.rows)].clip(max=rows), prepend=0))


class ActivationFiles:
    """Raises UsageError for a folder whose header or files cannot be read, or do not agree."""

    def __init__(self, folder: str, run: int, hook_name: str) -> None:
        """run: the largest number of rows of a run. hook_name: that of the job, for which the header must agree."""
        self.folder, self.run = Path(folder), run
        self.header = _header(self.folder)
        if hook_name != (there := self.header["hook_name"]):
            raise UsageError(f"{KEY}={folder}: holds hook_name={there}, and the site is {hook_name}; write site=... layer=... "
                             f"or site.hook_name={there}")
        self.files = sorted(self.folder.glob("*.safetensors"))
        if not self.files:
            raise UsageError(f"{KEY}={folder}: holds no *.safetensors; write the rows there, as docs/texts.md says")
        self.d_in, self.dtype = int(self.header["d_in"]), getattr(torch, self.header["dtype"])
        self.runs, self.digest = self._listed()

    def read(self, runs: Runs) -> Float[Tensor, "rows d_in"]:
        """The rows of the runs, in their order."""
        x, ends = torch.empty(int(runs.rows.sum()), self.d_in, dtype=self.dtype), runs.rows.cumsum()
        for number in np.unique(runs.file).tolist():
            with safetensors.safe_open(self.files[number], "pt") as opened:
                rows = opened.get_slice(ACTIVATIONS)
                for i in np.flatnonzero(runs.file == number).tolist():
                    start, count, end = int(runs.start[i]), int(runs.rows[i]), int(ends[i])
                    x[end - count : end] = rows[start : start + count]
        return x

    def _listed(self) -> tuple[Runs, str]:
        """The runs of all files, and a digest of the header, the documents and a sample of the rows of each."""
        found, digest, first = list[Runs](), hashlib.sha256(json.dumps(self.header, sort_keys=True).encode()), 0
        given = set[bool]()
        for number, file in enumerate(self.files):
            try:
                with safetensors.safe_open(file, "pt") as opened:
                    given.add(DOCUMENT in opened.keys())  # noqa: SIM118
                    documents = self._documents(opened, file, first)
                    found.append(_runs(documents, number, self.run))
                    digest.update(documents.tobytes() + self._sample(opened, found[-1]))
            except (OSError, safetensors.SafetensorError) as error:
                raise UsageError(f"{KEY}: cannot read {file}: {error}; write it again, or leave it out") from error
            first = int(documents[-1]) + 1 if len(documents) else first
        if len(given) > 1:
            raise UsageError(f"{KEY}={self.folder}: some of its files have a tensor {DOCUMENT}; give it to all or to none")
        return Runs(*map(np.concatenate, zip(*found, strict=True))), digest.hexdigest()

    def _documents(self, opened: Any, file: Path, first: int) -> Int64[np.ndarray, " rows"]:
        """The document of each row; first: the number of the first run, where they are not given."""
        if ACTIVATIONS not in opened.keys():  # noqa: SIM118
            raise UsageError(f"{KEY}: {file} has no tensor {ACTIVATIONS}, only {', '.join(opened.keys())}; name it so")
        there = opened.get_slice(ACTIVATIONS)
        shape, dtype = there.get_shape(), there[:0].dtype
        if len(shape) != 2 or shape[1] != self.d_in or dtype != self.dtype:
            raise UsageError(f"{KEY}: {file} holds {dtype} {shape}, and header.json says {self.dtype} [rows, {self.d_in}]; "
                             "correct one of them")
        if DOCUMENT not in opened.keys():  # noqa: SIM118
            return first + np.arange(shape[0]) // self.run
        documents = opened.get_tensor(DOCUMENT)
        if documents.shape != (shape[0],) or documents.is_floating_point():
            raise UsageError(f"{KEY}: {file}: {DOCUMENT} is {documents.dtype} {list(documents.shape)}; write an integer for "
                             f"each of the {shape[0]:,} rows")
        return documents.long().numpy()

    def _sample(self, opened: Any, runs: Runs) -> bytes:
        rows, some = opened.get_slice(ACTIVATIONS), runs.at(slice(None, None, max(1, len(runs.rows) // SAMPLED)))
        each = (rows[a : a + n] for a, n in zip(some.start.tolist(), some.rows.tolist(), strict=True))
        return b"".join(x.contiguous().view(torch.uint8).numpy().tobytes() for x in each)


def _header(folder: Path) -> dict[str, Any]:
    file = folder / "header.json"
    if not file.is_file():
        raise UsageError(f"{KEY}={folder}: has no header.json; write one with {', '.join(keys_of(Header))}")
    try:
        header = json.loads(file.read_text())
    except ValueError as error:
        raise UsageError(f"{file}: is not JSON ({error}); write {', '.join(keys_of(Header))}") from error
    missing = [key for key in keys_of(Header) if not isinstance(header, dict) or key not in header]
    if missing:
        raise UsageError(f"{file}: lacks {', '.join(missing)}; add them, as docs/texts.md says")
    return typed(str(file), header, Header)


def _runs(documents: Int64[np.ndarray, " rows"], file: int, run: int) -> Runs:
    """At most `run` rows each."""
    index = np.arange(len(documents))
    begins = np.where(np.diff(documents, prepend=documents[:1] - 1) != 0, index, 0)  # the first row of each document's rows
    start = np.flatnonzero((index - np.maximum.accumulate(begins)) % run == 0)
    rows = np.diff(start, append=len(documents))
    return Runs(np.full(len(start), file), start, rows, documents[start])
