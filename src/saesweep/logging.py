"""Who is told while training: per SAE a metrics.csv and one W&B run, per sweep one W&B summary run.

The only file that imports wandb. The local files never need it; without an account or a network its runs stay offline
in <job>/wandb and <sweep>/wandb, and `sync_command` says how to send them later.
"""

import csv
import hashlib
import json
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pandas as pd
from lightning.pytorch.loggers import Logger

from saesweep import distributed
from saesweep.errors import UsageError

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
MODES = ("online", "offline", "disabled")


@dataclass(frozen=True)
class MemberInfo:
    """What the logs call one SAE; `config` is its whole composed config as plain containers."""

    folder: Path  # outputs/<sweep>/<model>/<site>.<layer>/<arch>/<sparsity>[.<seed>]
    config: Mapping
    sweep: str
    model: str
    site: str
    layer: int
    arch: str
    sparsity: int | float
    seed: int

    @property
    def path(self) -> str:
        """The job's folder inside the sweep's."""
        return Path(*self.folder.parts[-4:]).as_posix()


class SweepLogger(Logger):
    """Every member's own logs behind one Lightning logger: opened on first use, by the first of the ranks that train it."""

    def __init__(self, members: Sequence[MemberInfo], csv: bool, wandb: Mapping | None) -> None:
        super().__init__()
        self.members = list(members)
        self._csv, self._wandb = csv, wandb
        if wandb is not None:
            _wanted(wandb["mode"])  # a mistyped mode is refused before anything is trained
        self._curves: dict[int, Curve] = {}
        self._runs: dict[int, wandb.Run] = {}

    @property
    def name(self) -> str:
        return self.members[0].sweep if self.members else ""

    @property
    def version(self) -> str:
        return ""

    def log_member(self, index: int, metrics: Mapping[str, int | float], tokens: int) -> None:
        """One row of the member's training curve; the first call fixes the keys."""
        if distributed.rank() > 0:
            return
        if self._csv:
            if index not in self._curves:
                self._curves[index] = Curve(self.members[index].folder / "metrics.csv", list(metrics), tokens)
            self._curves[index].add(metrics, tokens)
        if self._wandb is not None:
            self._run(index).log({"tokens": tokens, **{f"train/{key}": value for key, value in metrics.items()}})

    def finish(self, index: int, summary: Mapping[str, int | float | None] | None, failed: str | None) -> None:
        """Close the member's logs: its final numbers under eval/*, or why it failed."""
        if distributed.rank() > 0:
            return
        if index in self._curves:
            self._curves.pop(index).close()
        if self._wandb is not None:
            run = self._run(index)
            run.summary.update({f"eval/{key}": value for key, value in (summary or {}).items()})
            if failed is not None:
                run.summary["failed"] = failed
            run.finish(exit_code=0 if failed is None else 1)
            del self._runs[index]

    def log_metrics(self, metrics: Mapping[str, int | float], step: int | None = None) -> None:
        """Lightning's own, such as a callback's learning rate: of the group, so every member's run shows them."""
        if self._wandb is not None and distributed.rank() == 0:
            for index in range(len(self.members)):
                self._run(index).log({f"group/{key}": float(value) for key, value in metrics.items()})

    def log_hyperparams(self, params: Mapping, *args: object, **kwargs: object) -> None:
        """Each member's run holds its own config from the start."""

    def _run(self, index: int) -> "wandb.Run":
        if index not in self._runs:
            member = self.members[index]
            self._runs[index] = _open(
                self._wandb, member.folder, group=member.sweep, job_type="sae", config=_config(member),
                id=_digest(member.sweep, member.path, member.config),
                name=member.path, tags=[member.arch, member.site, f"layer {member.layer}"],
            )  # fmt: skip
            self._runs[index].define_metric("tokens", hidden=True)
            self._runs[index].define_metric("train/*", step_metric="tokens")
        return self._runs[index]


class Curve:
    """metrics.csv: appended and flushed row by row. A resumed run first drops the rows from its point of resume on."""

    def __init__(self, file: Path, keys: list[str], tokens: int) -> None:
        self.keys = keys
        kept = _rows_before(file, tokens) if file.exists() else []
        assert not kept or kept[0] == ["tokens", *keys], f"{file} has other columns: {kept[0]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.tmp")
        self._file: TextIO = draft.open("w", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerows(kept or [["tokens", *keys]])
        self._file.flush()
        draft.replace(file)

    def add(self, metrics: Mapping[str, int | float], tokens: int) -> None:
        assert list(metrics) == self.keys, f"metrics changed from {self.keys} to {list(metrics)}"
        self._writer.writerow([tokens, *(repr(float(value)) for value in metrics.values())])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _rows_before(file: Path, tokens: int) -> list[list[str]]:
    """The header and the rows of earlier tokens, nothing if there are none; a row cut short by a kill is dropped."""
    whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    header, rows = whole[:1], [row for row in csv.reader(whole[1:]) if int(row[0]) < tokens]
    return [*csv.reader(header), *rows] if rows else []


def _digest(*parts: object) -> str:
    """The same run id for the same job, so that a resumed run continues its own."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _config(member: MemberInfo) -> dict:
    """What a dashboard filters by at the top as plain values; the groups' own settings under `settings`."""
    groups = {key: value for key, value in member.config.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in member.config.items() if key not in groups}
    named = {key: group["name"] for key, group in groups.items() if "name" in group}
    facts = {key: getattr(member, key) for key in ("model", "site", "layer", "arch", "sparsity", "seed", "path")}
    return {**plain, **named, **facts, "settings": groups}


def _open(chosen: Mapping, folder: Path, **about: object) -> "wandb.Run":
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        reinit="create_new",  # several runs at once in this process
        console="off", silent=True, x_disable_stats=True, init_timeout=30,
    )  # fmt: skip
    known = {"project": chosen["project"], "entity": chosen["entity"], "dir": folder, "settings": settings, **about}
    if (mode := _mode(chosen["mode"])) != "online":
        return wandb.init(mode=mode, **known)
    try:
        return wandb.init(mode="online", resume="allow", **known)
    except wandb.errors.CommError as error:
        log.warning("W&B cannot be reached (%s): the run of %s stays offline", error, folder)
        return wandb.init(mode="offline", **known)


def _wanted(configured: str | None) -> str:
    mode = configured or os.environ.get("WANDB_MODE") or "online"
    if mode not in MODES:
        raise UsageError(f"logger.wandb.mode={mode} (or WANDB_MODE): choose one of {', '.join(MODES)}")
    return mode


def _mode(configured: str | None) -> str:
    asked = "online" in (configured, os.environ.get("WANDB_MODE"))
    wanted = _wanted(configured)
    return "offline" if wanted == "online" and not _logged_in(asked) else wanted


@cache
def _logged_in(asked: bool) -> bool:
    """Found out once a process, never at the keyboard: without an account or a network the runs stay offline."""
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:
        logged_in = wandb.login(prompt=False)
    except (wandb.errors.AuthenticationError, wandb.errors.CommError) as error:
        log.warning("W&B does not let us in (%s): the runs stay offline", error)
        return False
    if asked and not logged_in:
        log.warning("W&B mode online was asked for, but nobody is logged in (wandb login): the runs stay offline")
    return logged_in


def log_sweep(sweep: Path, df: pd.DataFrame, config: Mapping) -> None:
    """The sweep's summary run: the table of pareto.csv, the curves, and both figures as pareto.write left them."""
    import wandb

    name = sweep.resolve().name
    run = _open(config, sweep, group=name, job_type="pareto", name=f"{name} pareto", id=_digest(name, "pareto"))
    table = wandb.Table(dataframe=df)
    curves = wandb.plot.scatter(table, x="l0", y="fvu", title="FVU against L0")
    figure = wandb.Image(str(sweep / "pareto.png"))
    page = wandb.Html(sweep / "pareto.html", inject=False)
    run.log({"pareto": table, "fvu_against_l0": curves, "figure": figure, "page": page})
    run.finish()


def sync_command(sweep: Path) -> str | None:
    """The shell command that sends all offline runs of a sweep, or None where there is none to send."""
    found = [pattern for pattern in ("wandb", "*/*/*/*/wandb") if _unsent(sweep, pattern)]
    root = shlex.quote(str(sweep))
    return " ".join(["wandb sync", *(f"{root}/{pattern}/offline-run-*" for pattern in found)]) if found else None


def _unsent(sweep: Path, pattern: str) -> bool:
    runs = list(sweep.glob(f"{pattern}/offline-run-*/run-*.wandb"))
    return any(not file.with_name(f"{file.name}.synced").exists() for file in runs)
