"""Arrays in a file of safetensors, written and read through memory maps: none has to fit into memory, or is read unasked.

    8 bytes   length of the header
    header    JSON: name -> dtype, shape, data_offsets; __metadata__ -> texts
    data      the arrays, those of the widest dtype first, so that each is aligned
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from saesweep.errors import UsageError
from saesweep.runtime import atomic

Arrays = dict[str, np.ndarray]
DTYPES = {"U64": np.uint64, "I64": np.int64, "U32": np.uint32, "I32": np.int32, "F32": np.float32, "U8": np.uint8,
          "BOOL": np.bool_}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@contextmanager
def create(file: Path, shapes: Mapping[str, tuple[type, Sequence[int]]], metadata: Mapping[str, str]) -> Iterator[Arrays]:
    """Arrays of zeros to write to; the file replaces the one that is there when the block ends.

    shapes: name -> dtype and shape.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: -np.dtype(item[1][0]).itemsize):
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": NAMES[np.dtype(dtype)], "shape": list(map(int, shape)), "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.draft(file) as draft:
        draft.write_bytes(len(content).to_bytes(8, "little") + content)
        with draft.open("r+b") as opened:
            opened.truncate(8 + len(content) + end)
        yield _views(draft, header, 8 + len(content), "r+")
        atomic.share(draft)


def write(file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file whole or not at all."""
    with create(file, {name: (array.dtype.type, array.shape) for name, array in arrays.items()}, metadata) as views:
        for name, array in arrays.items():
            views[name][...] = array


def read(file: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays, read from disk as they are used, and the metadata. Raises UsageError where the file is damaged."""
    header, start = _header(file)
    return _views(file, header, start, "r"), header["__metadata__"]


def metadata(file: Path) -> dict[str, str]:
    """Raises UsageError where the file is damaged."""
    return _header(file)[0]["__metadata__"]


def _header(file: Path) -> tuple[dict, int]:
    """The header, and where the data begin."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(size) if size < 1 << 27 else b"")
        ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        if file.stat().st_size == 8 + size + max(ends, default=0):
            return header, 8 + size
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UsageError(f"{file} is damaged: delete it and run the same command again")


def _views(file: Path, header: Mapping[str, dict], start: int, mode: str) -> Arrays:
    items = {name: item for name, item in header.items() if name != "__metadata__"}
    size = max((item["data_offsets"][1] for item in items.values()), default=0)
    data = np.memmap(file, np.uint8, mode, start, (size,)) if size else np.empty(0, np.uint8)  # pyright: ignore
    return {
        name: np.asarray(data[slice(*item["data_offsets"])].view(DTYPES[item["dtype"]]).reshape(item["shape"]))
        for name, item in items.items()
    }
