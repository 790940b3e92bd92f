"""Weights & Biases: one run per SAE, and one summary run per sweep.

One thread opens, feeds and closes all runs of a process, in order: training does not wait for it. Results on disk never
need W&B; without an account or a network the runs stay offline in <job>/wandb and <sweep>/wandb, and `sync_command` gives
the command that uploads them.
"""
import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from saesweep.config.schema import wandb_mode
from saesweep.errors import UsageError
from saesweep.loggers.identity import digest
from saesweep.storage import files

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
PATIENCE = 60.0  # seconds to wait at the end of a training for its runs to close


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "wandb")


def submit(work: Callable[..., Any], *args: object) -> Future:
    """Queue work for the W&B thread."""
    return _thread().submit(work, *args)


def flush() -> None:
    """Wait until all submitted work is done, at most PATIENCE seconds."""
    with suppress(TimeoutError):
        submit(lambda: None).result(PATIENCE)


class SummaryRun:
    """The W&B run of a sweep: its table and curves, and at the end its page and figures."""

    def __init__(self, chosen: Mapping, sweep: Path) -> None:
        name = sweep.resolve().name
        about = {"group": name, "job_type": "pareto", "name": f"{name} pareto", "id": digest(name, "pareto")}
        self._run = open_run(chosen, sweep, **about)

    def log(
        self, df: pd.DataFrame, curves: pd.DataFrame | None, gaps: pd.DataFrame | None = None,
        examples: pd.DataFrame | None = None, files: Mapping[str, Path] | None = None,
    ) -> None:
        """df: one row per SAE. curves: the finished SAEs, drawn against l0; None: unchanged. gaps: at matched L0. examples: of
        latents. files: figures and pages, by key."""
        import wandb

        content: dict[str, Any] = {"pareto": _table(df)}
        if curves is not None and len(curves):
            for key in ("fvu", "delta_loss"):
                points = _table(curves.dropna(subset=[key]))
                content[f"{key}_against_l0"] = wandb.plot.scatter(points, x="l0", y=key, title=f"{key} against L0")
                content[f"{key}_curves"] = wandb.plot.line(points, x="l0", y=key, stroke="curve", title=f"{key} against L0")
        content |= {key: _table(more) for key, more in {"matched_l0": gaps, "latents": examples}.items()
                    if more is not None and len(more)}
        for key, file in (files or {}).items():
            is_page = file.suffix == ".html"
            content[key] = wandb.Html(file, inject=False) if is_page else wandb.Image(str(file))
        self._run.log(content)

    def finish(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)


def _table(df: pd.DataFrame) -> "wandb.Table":
    """Python numbers, and None for NaN, so that W&B shows what the CSV holds."""
    import wandb

    rows: list[Any] = [[None if pd.isna(value) else value for value in row] for row in df.astype(object).to_numpy().tolist()]
    return wandb.Table(columns=list(df.columns), data=rows, allow_mixed_types=True)


def open_run(chosen: Mapping, folder: Path, **about: object) -> "wandb.Run":
    """chosen: the node `logger.wandb`. The address of an online run is written to <folder>/wandb/url.txt."""
    run = _open(chosen, folder, **about)
    if not (run.offline or run.disabled):
        (folder / "wandb").mkdir(exist_ok=True)
        (folder / files.URL).write_text(f"{run.url}\n")
    return run


def _open(chosen: Mapping, folder: Path, **about: Any) -> "wandb.Run":
    import wandb
    from wandb.errors import CommError

    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        reinit="create_new",  # several runs at a time in this process
        console="off", silent=True, x_disable_stats=True, init_timeout=30,
        x_transaction_log_flush_interval=1.0,  # what kill -9 loses of an offline run; metrics.csv loses nothing
    )
    known: dict[str, Any] = {"project": chosen["project"], "entity": chosen["entity"], "dir": folder, **about}
    known["settings"] = settings
    if (mode := _mode(chosen["mode"])) != "online":
        return wandb.init(mode=cast(Any, mode), **known)
    try:
        return wandb.init(mode="online", resume="allow", **known)
    except CommError as error:
        log.warning("W&B cannot be reached (%s): runs are offline from %s on", error, folder)
        _unreachable.append(str(error))
        return wandb.init(mode="offline", **known)


_unreachable: list[str] = []  # once per process; each further run would wait as long


def _mode(configured: str | None) -> str:
    asked = "online" in (configured, os.environ.get("WANDB_MODE"))
    wanted = wandb_mode(configured)
    return "offline" if wanted == "online" and (_unreachable or not _logged_in(asked)) else wanted


@cache
def _logged_in(asked: bool) -> bool:
    """Determined once per process, without a prompt: without an account or a network the runs stay offline."""
    import wandb
    from wandb.errors import AuthenticationError, CommError

    wandb.setup(wandb.Settings(silent=True))
    try:
        logged_in = wandb.login(prompt=False)
    except (AuthenticationError, CommError) as error:
        log.warning("W&B refuses the login (%s): runs stay offline", error)
        return False
    if asked and not logged_in:
        log.warning("W&B mode online was asked for, but nobody is logged in (wandb login): runs stay offline")
    return logged_in


def archs(entity: str, project: str) -> dict[str, str]:
    """The SAEs of a project on W&B's server: run id -> architecture, and what tells it apart (the name of its curve)."""
    import wandb

    with usage_errors(f"{entity}/{project}"):
        found = wandb.Api().runs(f"{entity}/{project}", filters={"jobType": "sae"}, lazy=False)
        return {run.id: " ".join(filter(None, [run.config["arch"], run.config.get("variant")]))
                for run in found if "arch" in run.config}


@contextmanager
def usage_errors(what: str) -> Iterator[None]:
    """Errors of W&B's server become a UsageError that says what to do."""
    import requests
    from wandb.errors import Error

    if not _logged_in(asked=False):
        raise UsageError("nobody is logged in to W&B: run wandb login, or set WANDB_API_KEY")
    try:
        yield
    except (Error, ValueError, requests.RequestException) as error:
        raise UsageError(f"W&B refuses {what}, or cannot be reached: {error}; see that entity and project exist and are "
                         "yours to change") from error


def sync_command(sweep: Path) -> str | None:
    """The shell command that uploads all offline runs of a sweep; None if there are none."""
    found = [pattern for pattern in ("wandb", "*/*/*/*/wandb") if _unsent(sweep, pattern)]
    root = shlex.quote(str(sweep))
    return " ".join(["wandb sync", *(f"{root}/{pattern}/offline-run-*" for pattern in found)]) if found else None


def _unsent(sweep: Path, pattern: str) -> bool:
    runs = list(sweep.glob(f"{pattern}/offline-run-*/run-*.wandb"))
    return any(not file.with_name(f"{file.name}.synced").exists() for file in runs)
