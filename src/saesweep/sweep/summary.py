"""The summary run of a sweep in W&B, live: the launching process looks at the job folders and shows what stands there.

The disk is the only source, so it is the same for groups in this process, in others and on other machines. Nothing here
changes a result; what goes wrong is a warning.
"""

import csv
import json
import logging
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from saesweep import pareto, wandb_runs
from saesweep.sweep.jobs import Job, shown
from saesweep.sweep.record import FAILED, RESOLVED

log = logging.getLogger(__name__)
WATCHED = ("eval.json", "metrics.csv", FAILED)
CURRENT = ("tokens", "l0", "fvu", "dead", "coefficient")  # of the last row of metrics.csv
FILES = {"page": "pareto.html", "figure": "pareto.png", "frequency": "frequency.png"}


@contextmanager
def summaries(jobs: Sequence[Job]) -> Iterator[Callable[[], None]]:
    """While the block runs, each sweep's summary run is kept up to date; what is yielded makes it look at once."""
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
            wandb_runs.in_turn(summary.close, whole)
        wandb_runs.settle()


def _summaries(jobs: Sequence[Job]) -> list["Summary"]:
    """Of the sweeps that are told to W&B, with their jobs."""
    found: dict[Path, Summary] = {}
    for job in jobs:
        if chosen := (job.settings.get("logger") or {}).get("wandb"):
            found.setdefault(job.sweep, Summary(job.sweep, chosen)).running.add(job.folder)
    return list(found.values())


def _watch(found: Sequence["Summary"], over: threading.Event, look: threading.Event, seconds: float) -> None:
    while not over.is_set():
        for done in [wandb_runs.in_turn(summary.update) for summary in found]:
            done.result()
        look.wait(seconds)
        look.clear()


class Summary:
    """Of one sweep's folder. All but the constructor is called by W&B's thread."""

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
        """whole: the sweep is over, and its page and figures are of now."""
        self._closed = True
        self.running.clear()
        self._or_warn(lambda: self._update(_written(self.sweep) if whole else {}))
        if self._run is not None:
            self._or_warn(lambda: self._run.finish(exit_code=0 if whole else 1))

    def _or_warn(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever W&B raises, or a file that cannot be read
            said = f"{type(error).__name__}: {error}"
            if said != self._said:
                log.warning("W&B does not show %s as it is now: %s", shown(self.sweep), said)
            self._said = said

    def _update(self, files: Mapping[str, Path] | None = None) -> None:
        """files: what is shown at the end besides; None while the sweep runs."""
        self._run = self._run or wandb_runs.SummaryRun(self.chosen, self.sweep)
        stamps = [(str(file), file.stat().st_mtime_ns) for name in WATCHED for file in self.sweep.glob(f"*/*/*/*/{name}")]
        if files is None and stamps == self._seen:
            return
        df = standing(self.sweep, self.running)
        curves = _curves(df)
        drawn = curves.to_csv()
        gaps = None if files is None else matched_l0(self.sweep)
        self._run.log(df, None if files is None and drawn == self._drawn else curves, gaps, **(files or {}))
        self._seen, self._drawn = stamps, drawn


def _written(sweep: Path) -> dict[str, Path]:
    return {key: sweep / name for key, name in FILES.items() if (sweep / name).is_file()}


def _curves(df: pd.DataFrame) -> pd.DataFrame:
    """What is drawn: the finished SAEs, by l0; a curve is an architecture at a place."""
    done = df[df["state"] == "finished"].sort_values("l0", kind="stable")
    place = done["model"].astype(str) + " " + done["site"].astype(str) + "." + done["layer"].astype(str)
    curve = done["arch"].astype(str) + (" " + place if place.nunique() > 1 else "")
    return done.assign(curve=curve)[["l0", "fvu", "delta_loss", "curve", "sparsity", "seed", "path"]]


def matched_l0(sweep: Path) -> pd.DataFrame | None:
    """The comparison at equal L0 that pareto.json holds, one row per pair, sparsity, metric and place."""
    if not (sweep / "pareto.json").is_file():
        return None
    rows = []
    for place in json.loads((sweep / "pareto.json").read_text())["places"]:
        where = {key: place[key] for key in ("model", "site", "layer")}
        for metric, found in place["metrics"].items():
            rows += [{**where, "metric": metric, **gap} for gap in found["gaps"]]
    return pd.DataFrame(rows)


def standing(sweep: Path, running: Container[Path] = ()) -> pd.DataFrame:
    """All SAEs of the sweep with their `state`; those in `running` as they are now, on the last training batches."""
    df = _all(sweep)
    now = {row: _last_row(sweep / path) for row, path in df["path"].items() if sweep / path in running}
    for row, values in now.items():
        if df.at[row, "state"] == "unfinished" and values:
            df.loc[row, [*values, "state"]] = [*values.values(), "training"]
    return df


def _last_row(job: Path) -> dict[str, float]:
    """A last line that is cut short is one that is being written."""
    file = job / "metrics.csv"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    rows = list(csv.DictReader(line for line in lines if line.endswith("\n")))
    return {key: float(rows[-1][key]) for key in CURRENT if key in rows[-1]} if rows else {}


def _all(sweep: Path) -> pd.DataFrame:
    """One row per SAE, finished or not."""
    done = pareto.collect(sweep).astype(object).assign(state="finished")
    jobs = [file.parents[1] for file in sorted(sweep.glob(f"*/*/*/*/{RESOLVED}"))]
    rest = [_unfinished(job, sweep) for job in jobs if not (job / "eval.json").is_file()]
    return pd.DataFrame([*done.to_dict("records"), *rest], columns=[*pareto.COLUMNS, "state"])


def _unfinished(job: Path, sweep: Path) -> dict[str, Any]:
    config = OmegaConf.load(job / RESOLVED)
    named = {key: config[key]["name"] for key in ("model", "site", "arch")}
    plain = {key: config[key] for key in ("layer", "sparsity", "seed")}
    state = "failed" if (job / FAILED).is_file() else "unfinished"
    return {**named, **plain, "on_front": False, "path": job.relative_to(sweep).as_posix(), "state": state}
