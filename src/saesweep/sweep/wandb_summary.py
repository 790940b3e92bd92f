"""The summary run of a sweep in W&B, updated while it trains from the files in the jobs' folders.

Files are the only source, so groups in other processes and on other machines are shown too. Errors are logged as warnings
and change no result.
"""
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from saesweep.loggers import wandb_runs
from saesweep.loggers.wandb_tables import curves_of, matched_l0, standing, written
from saesweep.storage import files
from saesweep.sweep.jobs import Job, shown

log = logging.getLogger(__name__)
WATCHED = (files.NUMBERS, files.CURVE, files.FAILED)


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
        self._or_warn(lambda: self._update(written(self.sweep) if whole else {}))
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
        curves = curves_of(df)
        drawn = curves.to_csv()
        gaps = None if last is None else matched_l0(self.sweep)
        self._run.log(df, None if last is None and drawn == self._drawn else curves, gaps, files=last)
        self._seen, self._drawn = stamps, drawn
