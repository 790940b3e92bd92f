"""Where metrics are logged during training: per SAE its metrics.csv, its W&B run and any Lightning logger, on a token axis.

metrics.csv is part of the result: an SAE whose rows cannot be written fails. The other loggers are best effort: the first
error of one is logged, and training continues without it.
"""
import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from lightning.pytorch.loggers import Logger

from saesweep.config.schema import wandb_mode
from saesweep.errors import UsageError
from saesweep.loggers import wandb_runs
from saesweep.loggers.identity import MemberInfo
from saesweep.loggers.lightning_logger import LightningLogger
from saesweep.loggers.wandb_sae import SaeRun
from saesweep.runtime import distributed
from saesweep.storage import files

log = logging.getLogger(__name__)
Metrics = Mapping[str, int | float]
Summary = Mapping[str, int | float | None]


@runtime_checkable
class SAELogger(Protocol):
    """One logger of one SAE."""

    def add(self, metrics: Metrics, tokens: int) -> None: ...
    def group(self, metrics: Metrics) -> None: ...
    def close(self, summary: Summary | None, failed: str | None) -> None: ...


class SweepLogger(Logger):
    """The loggers of every SAE of the group behind one Lightning logger. Opened on first use, on the SAE's first rank.

    chosen: the node `logger` of the config.
    """

    def __init__(self, members: Sequence[MemberInfo], chosen: Mapping[str, Any]) -> None:
        super().__init__()
        self.members = list(members)
        self._chosen = {kind: node for kind, node in chosen.items() if node is not None}
        if "wandb" in self._chosen:
            wandb_mode(self._chosen["wandb"]["mode"])  # a mistyped mode is refused before anything is trained
        self._open: dict[int, list[SAELogger]] = {}

    @property
    def name(self) -> str:
        return self.members[0].sweep if self.members else ""

    @property
    def version(self) -> str:
        return ""

    def log_member(self, index: int, metrics: Metrics, tokens: int) -> None:
        """Log one row of the SAE's training curve; the first call fixes the keys."""
        if distributed.rank_in_sae() == 0:
            for logger in self._of(index):
                logger.add(metrics, tokens)

    def finish(self, index: int, summary: Summary | None, failed: str | None) -> None:
        """Close the SAE's loggers with its final metrics, under eval/*, or why it failed."""
        if distributed.rank_in_sae() > 0:
            return
        for logger in self._of(index):
            logger.close(summary, failed)
        del self._open[index]
        if not self._open and "wandb" in self._chosen:
            wandb_runs.flush()

    def log_metrics(self, metrics: Metrics, step: int | None = None) -> None:
        """Lightning's own metrics, such as a callback's learning rate, are of the group: every SAE's loggers get them."""
        if distributed.rank_in_sae() == 0:
            for index in range(len(self.members)):
                for logger in self._of(index):
                    logger.group(metrics)

    def log_hyperparams(self, params: Mapping, *args: object, **kwargs: object) -> None:
        """Each SAE's loggers have its own config from the start."""

    def _of(self, index: int) -> list[SAELogger]:
        if index not in self._open:
            member = self.members[index]
            self._open[index] = [_logger_of(kind, node, member) for kind, node in self._chosen.items()]
        return self._open[index]


def _logger_of(kind: str, node: Mapping, member: MemberInfo) -> SAELogger:
    what = f"logger={kind} of {member.path}"
    if kind == "csv":
        return CurveFile(member.folder / files.CURVE)
    if kind == "wandb":
        return BestEffortLogger(what, lambda: SaeRun(node, member), wandb_runs.submit)
    return BestEffortLogger(what, lambda: LightningLogger(kind, node, member), lambda work, *args: work(*args))


class BestEffortLogger:
    """A logger whose errors do not end the training. `make` opens it at first use; `call(work, *args)` runs its work."""

    def __init__(self, what: str, make: Callable[[], SAELogger], call: Callable[..., object]) -> None:
        self._what, self._make, self._call = what, make, call
        self._made: SAELogger | None = None
        self._broken = False

    def add(self, metrics: Metrics, tokens: int) -> None:
        self._call(self._do, "add", dict(metrics), tokens)

    def group(self, metrics: Metrics) -> None:
        self._call(self._do, "group", dict(metrics))

    def close(self, summary: Summary | None, failed: str | None) -> None:
        self._call(self._do, "close", summary, failed)

    def _do(self, name: str, *args: object) -> None:
        if self._broken:
            return
        try:
            self._made = self._made or self._make()
            getattr(self._made, name)(*args)
        except Exception as error:  # whatever the library raises
            self._broken = True
            log.warning("%s: %s: %s; training continues without it", self._what, type(error).__name__, error)


class CurveFile:
    """metrics.csv: appended and flushed row by row. A resumed run first drops the rows after the step at which it resumes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: list[str] = []
        self._file: TextIO | None = None

    def add(self, metrics: Metrics, tokens: int) -> None:
        file = self._file or self._open(list(metrics), tokens)
        self._require_same(self._keys, list(metrics))
        self._writer.writerow([tokens, *(repr(float(value)) for value in metrics.values())])
        file.flush()

    def group(self, metrics: Metrics) -> None:
        """Metrics of the group have no column."""

    def close(self, summary: Summary | None, failed: str | None) -> None:
        if self._file is not None:
            self._file.close()

    def _require_same(self, before: list[str], now: list[str]) -> None:
        """One table has one set of columns: raises UsageError where a row, or a resumed training, has others."""
        if before != now:
            raise UsageError(f"{self._path}: its columns are {', '.join(before)}, but the metrics are now {', '.join(now)}; an "
                             "architecture has the same losses at every step, and a changed one needs another name=")

    def _open(self, keys: list[str], tokens: int) -> TextIO:
        kept = _rows_before(self._path, tokens) if self._path.exists() else []
        if kept:
            self._require_same(kept[0][1:], keys)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.tmp")
        self._keys, self._file = keys, (file := draft.open("w", newline=""))
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerows(kept or [["tokens", *keys]])
        file.flush()
        draft.replace(self._path)
        return file


def _rows_before(file: Path, tokens: int) -> list[list[str]]:
    """The header and the rows before `tokens`, empty if there are none; a row that a kill has cut short is dropped."""
    whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    header, rows = whole[:1], [row for row in csv.reader(whole[1:]) if int(row[0]) < tokens]
    return [*csv.reader(header), *rows] if rows else []
