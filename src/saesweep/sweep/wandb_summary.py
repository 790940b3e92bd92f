"""The summary run of a sweep in W&B, updated while it trains from the files in the jobs' folders.

Files are the only source, so groups in other processes and on other machines are shown too. Errors are logged as warnings
and change no result.
"""
import json
import logging
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from saesweep.loggers import wandb_runs
from saesweep.storage import files, sweep_table
from saesweep.sweep.jobs import Job, shown

log = logging.getLogger(__name__)
WATCHED = (files.NUMBERS, files.CURVE, files.FAILED)
CURRENT = ("tokens", "l0", "fvu", "dead", "coefficient")  # of the last row of metrics.csv
FILES = {"page": "pareto.html", "figure": "pareto.png", "frequency": "frequency.png"}


@contextmanager
def summaries(jobs: Sequence[Job]) -> Iterator[Callable[[], None]]:
    """Keep each sweep's summary run up to date within the block; yields a function that updates it at once."""
    found = _summaries(jobs)
    if not found:
        yield lambda: None
        return
    over, look = threading.Event(), threading.Event()
    seconds = min(summary.chosen["live_seconds"] for summary in found)
    threading.Thread(target=_watch, args=(found, over, look, seconds), daemon=True).start()
    whole = False
    try:
        yield look.set
        whole = True
    finally:
        over.set()
        look.set()
        for summary in found:
            wandb_runs.submit(summary.close, whole)
        wandb_runs.flush()


def _summaries(jobs: Sequence[Job]) -> list["Summary"]:
    """The sweeps that are logged to W&B, with their jobs."""
    found: dict[Path, Summary] = {}
    for job in jobs:
        if chosen := (job.settings.get("logger") or {}).get("wandb"):
            found.setdefault(job.sweep, Summary(job.sweep, chosen)).running.add(job.folder)
    return list(found.values())


def _watch(found: Sequence["Summary"], over: threading.Event, look: threading.Event, seconds: float) -> None:
    while not over.is_set():
        for done in [wandb_runs.submit(summary.update) for summary in found]:
            done.result()
        look.wait(seconds)
        look.clear()


class Summary:
    """The summary of one sweep. All methods but the constructor run in W&B's thread."""

    def __init__(self, sweep: Path, chosen: Mapping[str, Any]) -> None:
        self.sweep, self.chosen = sweep, chosen
        self.running: set[Path] = set()
        self._run: wandb_runs.SummaryRun | None = None
        self._seen: object = None
        self._drawn: object = None
        self._said = ""
        self._closed = False

    def update(self) -> None:
        if not self._closed:
            self._or_warn(self._update)

    def close(self, whole: bool) -> None:
        """whole: the sweep has ended, and its page and figures are current."""
        self._closed = True
        self.running.clear()
        self._or_warn(lambda: self._update(_written(self.sweep) if whole else {}))
        if self._run is not None:
            self._or_warn(partial(self._run.finish, exit_code=0 if whole else 1))

    def _or_warn(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever W&B raises, or a file that cannot be read
            said = f"{type(error).__name__}: {error}"
            if said != self._said:
                log.warning("the W&B summary of %s is not up to date: %s", shown(self.sweep), said)
            self._said = said

    def _update(self, last: Mapping[str, Path] | None = None) -> None:
        """last: files that are shown at the end; None while the sweep runs."""
        self._run = self._run or wandb_runs.SummaryRun(self.chosen, self.sweep)
        stamps = [(str(file), file.stat().st_mtime_ns) for name in WATCHED for file in self.sweep.glob(f"*/*/*/*/{name}")]
        if last is None and stamps == self._seen:
            return
        df = standing(self.sweep, self.running)
        curves = _curves(df)
        drawn = curves.to_csv()
        gaps = None if last is None else matched_l0(self.sweep)
        self._run.log(df, None if last is None and drawn == self._drawn else curves, gaps, **(last or {}))
        self._seen, self._drawn = stamps, drawn


def _written(sweep: Path) -> dict[str, Path]:
    return {key: sweep / name for key, name in FILES.items() if (sweep / name).is_file()}


def _curves(df: pd.DataFrame) -> pd.DataFrame:
    """The finished SAEs, by l0; a curve is one architecture at one site."""
    finished: pd.DataFrame = df.loc[df["state"] == "finished"]
    done = finished.sort_values(by="l0", kind="stable")
    place = done["model"].astype(str) + " " + done["site"].astype(str) + "." + done["layer"].astype(str)
    curve = done["arch"].astype(str) + (" " + place if len(place.unique()) > 1 else "")
    return done.assign(curve=curve).loc[:, ["l0", "fvu", "delta_loss", "curve", "sparsity", "seed", "path"]]


def matched_l0(sweep: Path) -> pd.DataFrame | None:
    """The comparisons at equal L0 of pareto.json, one row per pair, target L0, metric and site."""
    if not (sweep / "pareto.json").is_file():
        return None
    rows = []
    for place in json.loads((sweep / "pareto.json").read_text())["places"]:
        where = {key: place[key] for key in sweep_table.PLACE}
        for metric, found in place["metrics"].items():
            rows += [{**where, "metric": metric, **gap} for gap in found["gaps"]]
    return pd.DataFrame(rows)


def standing(sweep: Path, running: Container[Path] = ()) -> pd.DataFrame:
    """All SAEs of the sweep with their `state`; for those in `running`, the metrics of the last training batches."""
    df = sweep_table.table(sweep).astype(object)
    for row, path in zip(df.index, df["path"].tolist(), strict=True):
        now = files.latest(sweep / path) if sweep / path in running and df.at[row, "state"] == "unfinished" else {}
        for key in CURRENT if now else ():
            df.at[row, key] = now.get(key)
        df.at[row, "state"] = "training" if now else df.at[row, "state"]
    return df
