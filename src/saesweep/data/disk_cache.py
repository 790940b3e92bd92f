"""Activations on disk, so that a second sweep needs no language model: `cache=disk`.

    outputs/.activations/<digest>/    the digest of all that determines the activations
      header.json                     what that is, to read
      <place>.json                    a run of blocks: the tokens asked for, its rows per block, where each ends in the text,
                                      its files
      <place>.<n>.bin                 the rows of one hook point, raw, in the language model's dtype

A place is where the run begins in the text (pool and position), or the digest of held-out tokens. The files of a run are
written before its JSON, under other names first: a run is there whole or not at all, and another sweep adds the hook
points that it lacks.
"""
from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from saesweep.data.harvest import LanguageModelSource
from saesweep.data.micro_batches import tokens_wanted
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.lm.models import Tokenizer
from saesweep.runtime import atomic, distributed

log = logging.getLogger(__name__)


def digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


class CachedSource:
    """The windows of a LanguageModelSource, bit for bit; `make` loads the language model, once something is missing."""

    def __init__(
        self, folder: Path, determined_by: Mapping[str, Any], points: Sequence[HookPoint],
        make: Callable[[], LanguageModelSource], *, tokenizer: Tokenizer, context: int, window: int,
        device: torch.device | str = "cpu",
    ):
        self.device, self.tokenizer = torch.device(device), tokenizer
        self.folder, self.points, self.make = folder / digest(determined_by), tuple(points), make
        if not (self.folder / "header.json").is_file():  # one that is whole may be read-only
            _require_folder(folder)
        self.context, self.window_tokens, self.state = context, window, {"pool": 0, "position": 0}
        self.header = json.dumps(determined_by, indent=1, default=str).encode()

    def window(self, rows: int) -> Rows:
        wanted = tokens_wanted(rows, self.context, self.window_tokens, self.tokenizer)
        place = self._place()
        run = self._run(place)
        if distributed.any_rank(run is None or (run["wanted"] < wanted and not run["text_ended"])):
            run = self._harvest_run(place, wanted)
        run = self._with_all_points(place, run)
        found = list(itertools.accumulate(run["rows"]))
        blocks = min(bisect.bisect_left(found, wanted) + 1, len(found))
        self.state = dict(zip(("pool", "position"), run["ends"][blocks - 1], strict=True))
        return self._rows(run, sum(run["rows"][:blocks]))

    def holds_next(self) -> bool:
        """Whether the next window, or a part of it, is on disk for all hook points."""
        run = self._run(self._place())
        return run is not None and not self._lacking(run)

    def read(self, tokens: Int[Tensor, "blocks context"]) -> Rows:
        """Of blocks that are no run of the training text."""
        place = "held_out-" + hashlib.sha256(tokens.numpy().tobytes()).hexdigest()[:16]
        run = self._run(place) or {"points": {}, "rows": None}
        lacking = self._lacking(run)
        if lacking:
            run = self._add(place, run, self.make().read(tokens, lacking))
        return self._rows(run, None)

    def _place(self) -> str:
        return f"{self.state['pool']:06}-{self.state['position']:06}"

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)

    def _harvest_run(self, place: str, wanted: int) -> dict[str, Any]:
        source = self.make()
        source.load_state_dict(self.state)
        tokens, ends = source.next_blocks(wanted)
        per_block = source.ordinary(tokens).sum(1).tolist()
        run = {"wanted": wanted, "rows": per_block, "ends": ends, "text_ended": sum(per_block) < wanted, "points": {}}
        return self._add(place, run, source.read(tokens, self.points, source.progress_callback(sum(per_block))))

    def _with_all_points(self, place: str, run: dict[str, Any]) -> dict[str, Any]:
        lacking = self._lacking(run)
        if not lacking:
            return run
        source = self.make()
        source.load_state_dict(self.state)
        tokens, _ = source.next_blocks(run["wanted"])
        return self._add(place, run, source.read(tokens, lacking, source.progress_callback(sum(run["rows"]))))

    def _lacking(self, run: Mapping[str, Any]) -> list[HookPoint]:
        """The same on all ranks: what one of them has not seen on disk yet, all harvest."""
        mine = [point for point in self.points if str(point) not in run["points"]]
        anybodys = set(itertools.chain(*distributed.all_gather(mine)))
        return [point for point in self.points if point in anybodys]

    def _run(self, place: str) -> dict[str, Any] | None:
        file = self.folder / f"{place}.json"
        if not file.is_file():
            return None
        try:
            return _checked(json.loads(file.read_bytes()))
        except (ValueError, RecursionError, TypeError) as error:
            raise self._damaged(file) from error

    def _damaged(self, file: Path) -> UsageError:
        return UsageError(f"cache=disk: {file} is damaged or missing; delete {self.folder}, it is made again")

    def _add(self, place: str, run: dict[str, Any], rows: Rows) -> dict[str, Any]:
        for point, x in rows.items():
            name = f"{place}.{digest(str(point))}.bin"
            content = x.cpu().contiguous().view(torch.uint8).numpy()
            _write(self.folder / name, content)
            dtype = str(x.dtype).removeprefix("torch.")
            run["points"][str(point)] = {"file": name, "dtype": dtype, "d_in": x.shape[1], "crc32": zlib.crc32(content)}
        if not (self.folder / "header.json").is_file():
            _write(self.folder / "header.json", self.header)
        _write(self.folder / f"{place}.json", json.dumps(run).encode())
        return run

    def _rows(self, run: Mapping[str, Any], count: int | None) -> Rows:
        return {point: self._read(run["points"][str(point)])[:count] for point in self.points}

    def _read(self, entry: Mapping[str, Any]) -> Tensor:
        file = self.folder / entry["file"]
        size = file.stat().st_size if file.is_file() else 0
        content = torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        if size:
            with file.open("rb") as opened:
                opened.readinto(content.numpy())
        if zlib.crc32(content.numpy()) != entry["crc32"]:
            raise self._damaged(file)
        x = content.view(getattr(torch, entry["dtype"])).view(-1, entry["d_in"])
        return x.to(self.device, non_blocking=True)


def _checked(run: Any) -> dict[str, Any]:
    """Raises ValueError or TypeError for what is not the JSON of a run."""
    lacking = {"points", "rows"} - set(run if isinstance(run, dict) else {})
    entries = () if lacking else dict(run["points"]).values()
    if lacking or any({"file", "dtype", "d_in", "crc32"} - set(entry) for entry in entries):
        raise ValueError("it lacks keys")
    return run


def _require_folder(folder: Path) -> None:
    """Raises UsageError where nothing can be written to it, or to the first of its parents that is there."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UsageError(f"cache.folder={folder}: {there} is no folder; give another, or write cache=none")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"cache.folder={folder}: {there} cannot be written to; give another, or write cache=none")


def _write(file: Path, content: Any) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(file, content)
    except OSError as error:
        raise UsageError(f"cache=disk: cannot write {file}: {error.strerror}; make room, or write cache=none") from error
