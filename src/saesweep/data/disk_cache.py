"""Activations on disk (`cache=disk`), so that a second sweep needs no language model.

    outputs/.activations/<digest>/    digest of all settings that determine the activations
      header.json                     those settings, for a reader
      <key>.json                      an entry: tokens requested, rows per block, the position after each block, its files
      <key>.<digest>.bin              the raw rows of one hook point [rows, d_in], in the dtype of the language model

The key is the position in the text at which the entry begins (pool and block), or the digest of held-out tokens. The files
of an entry are written before its JSON, each atomically, so that an entry is complete or absent; hook points that an entry
lacks are added by the sweep that needs them.
"""
import bisect
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from saesweep.data.harvest import LanguageModelSource
from saesweep.data.micro_batches import ordinary_positions, tokens_wanted
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.lm.tokenizer import Tokenizer
from saesweep.runtime import atomic, distributed


def digest(what: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


class CachedSource:
    """The windows of a LanguageModelSource, bit for bit. `make` is called, and loads the model, only for missing entries.
    Raises UsageError where the folder cannot be written to or an entry is damaged."""

    def __init__(
        self, folder: Path, determined_by: Mapping[str, Any], points: Sequence[HookPoint],
        make: Callable[[], LanguageModelSource], *, tokenizer: Tokenizer, context: int, window: int,
        device: torch.device | str = "cpu",
    ):
        self.device, self.tokenizer = torch.device(device), tokenizer
        self.folder, self.points, self.make = folder / digest(determined_by), tuple(points), make
        if not (self.folder / "header.json").is_file():  # a complete cache may be read-only
            _require_folder(folder)
        self.context, self.window_tokens = context, window
        self.state: dict[str, Any] = {"pool": 0, "position": 0}
        self.header = json.dumps(determined_by, indent=1, default=str).encode()

    def window(self, rows: int) -> Rows:
        """The next window; a smaller one where no more than `rows` rows are wanted."""
        wanted = tokens_wanted(rows, self.context, self.window_tokens, self.tokenizer)
        key = self._key()
        entry = self._entry(key)
        if distributed.any_rank(entry is None or (entry["wanted"] < wanted and not entry["text_ended"])) or entry is None:
            entry = self._harvest_entry(key, wanted)
        entry = self._completed(key, entry)
        rows_up_to = list(itertools.accumulate(entry["rows"]))
        blocks = min(bisect.bisect_left(rows_up_to, wanted) + 1, len(rows_up_to))
        pool, position = entry["ends"][blocks - 1]
        self.state = {"pool": pool, "position": position}
        return self._rows(entry, sum(entry["rows"][:blocks]))

    def holds_next(self) -> bool:
        """Whether the next window, or its beginning, is on disk for all hook points."""
        entry = self._entry(self._key())
        return entry is not None and not self._missing(entry)

    def read(self, tokens: Int[Tensor, "blocks context"]) -> Rows:
        """Activations at the ordinary positions of held-out blocks, cached by the digest of their tokens."""
        key = "held_out-" + hashlib.sha256(tokens.numpy().tobytes()).hexdigest()[:16]
        entry = self._entry(key) or {"points": {}, "rows": None}
        if missing := self._missing(entry):
            entry = self._add(key, entry, self.make().read(tokens, missing))
        return self._rows(entry, None)

    def _key(self) -> str:
        return f"{self.state['pool']:06}-{self.state['position']:06}"

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)

    def _harvest_entry(self, key: str, wanted: int) -> dict[str, Any]:
        source = self.make()
        source.load_state_dict(self.state)
        tokens, ends = source.next_blocks(wanted)
        per_block = ordinary_positions(tokens, self.tokenizer).sum(1).tolist()
        entry = {"wanted": wanted, "rows": per_block, "ends": ends, "text_ended": sum(per_block) < wanted, "points": {}}
        return self._add(key, entry, source.read(tokens, self.points, source.progress_callback(sum(per_block))))

    def _completed(self, key: str, entry: dict[str, Any]) -> dict[str, Any]:
        if not (missing := self._missing(entry)):
            return entry
        source = self.make()
        source.load_state_dict(self.state)
        tokens, _ = source.next_blocks(entry["wanted"])
        return self._add(key, entry, source.read(tokens, missing, source.progress_callback(sum(entry["rows"]))))

    def _missing(self, entry: Mapping[str, Any]) -> list[HookPoint]:
        """The hook points that an entry lacks on any rank: all ranks harvest together."""
        missing_here = [point for point in self.points if str(point) not in entry["points"]]
        missing_anywhere = set(itertools.chain(*distributed.all_gather(missing_here)))
        return [point for point in self.points if point in missing_anywhere]

    def _entry(self, key: str) -> dict[str, Any] | None:
        file = self.folder / f"{key}.json"
        if not file.is_file():
            return None
        try:
            return _checked(json.loads(file.read_bytes()))
        except (ValueError, RecursionError, TypeError) as error:
            raise self._damaged(file) from error

    def _damaged(self, file: Path) -> UsageError:
        return UsageError(f"cache=disk: {file} is damaged or missing; delete {self.folder}, it is made again")

    def _add(self, key: str, entry: dict[str, Any], rows: Rows) -> dict[str, Any]:
        for point, x in rows.items():
            name = f"{key}.{digest(str(point))}.bin"
            content = x.cpu().contiguous().view(torch.uint8).numpy()
            _write(self.folder / name, content)
            dtype = str(x.dtype).removeprefix("torch.")
            entry["points"][str(point)] = {"file": name, "dtype": dtype, "d_in": x.shape[1], "crc32": zlib.crc32(content.data)}
        if not (self.folder / "header.json").is_file():
            _write(self.folder / "header.json", self.header)
        _write(self.folder / f"{key}.json", json.dumps(entry).encode())
        return entry

    def _rows(self, entry: Mapping[str, Any], count: int | None) -> Rows:
        return {point: self._read(entry["points"][str(point)])[:count] for point in self.points}

    def _read(self, array: Mapping[str, Any]) -> Tensor:
        file = self.folder / array["file"]
        size = file.stat().st_size if file.is_file() else 0
        content = torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        if size:
            with file.open("rb") as opened:
                opened.readinto(content.numpy())
        if zlib.crc32(content.numpy().data) != array["crc32"]:
            raise self._damaged(file)
        x = content.view(getattr(torch, array["dtype"])).view(-1, array["d_in"])
        return x.to(self.device, non_blocking=True)


def _checked(entry: Any) -> dict[str, Any]:
    """Raises ValueError or TypeError for JSON that is not an entry."""
    missing = {"points", "rows"} - set(entry if isinstance(entry, dict) else {})
    arrays = () if missing else dict(entry["points"]).values()
    if missing or any({"file", "dtype", "d_in", "crc32"} - set(array) for array in arrays):
        raise ValueError("keys are missing")
    return entry


def _require_folder(folder: Path) -> None:
    """Raises UsageError unless the folder, or the first of its parents that exists, can be written to."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UsageError(f"cache.folder={folder}: {existing} is not a folder; give another, or write cache=none")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"cache.folder={folder}: {existing} cannot be written to; give another, or write cache=none")


def _write(file: Path, content: Any) -> None:
    try:
        atomic.write(file, content)
    except OSError as error:
        raise UsageError(f"cache=disk: cannot write {file}: {error.strerror}; make room, or write cache=none") from error
