"""The live table on a terminal: one row per SAE, updated from the files in the jobs' folders, wherever they train."""
from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from saesweep.config.settings import target
from saesweep.loggers.identity import curves
from saesweep.runtime import console
from saesweep.storage import files
from saesweep.sweep.jobs import Job
from saesweep.sweep.plan import duration, shown_target

if TYPE_CHECKING:
    from rich.table import Table

EVERY = 1.0  # seconds
STYLES = {"finished": "green", "failed": "bold red", "waiting": "dim", "training": "", "evaluating": ""}


class Row(NamedTuple):
    state: str
    numbers: dict[str, Any]  # tokens, l0, fvu, dead and, in training, tokens_per_second


@contextmanager
def live(jobs: Sequence[Job]) -> Iterator[None]:
    """Show the table within the block if stderr is a terminal; else runtime/console.py prints plain lines."""
    if not sys.stderr.isatty() or not jobs:
        yield
        return
    view = View(jobs)
    thread = threading.Thread(target=view.run, daemon=True)
    with view.table_on_screen, console.route_status(view.show_status):
        thread.start()
        try:
            yield
        finally:
            view.over.set()
            thread.join()


class View:
    def __init__(self, jobs: Sequence[Job]):
        from rich.console import Console
        from rich.live import Live

        names = curves([job.settings for job in jobs], [job.folder for job in jobs])
        self.curves = dict(zip([job.folder for job in jobs], names, strict=True))
        self.jobs, self.over, self.status, self.since = jobs, threading.Event(), "", time.time()
        self.table_on_screen = Live(console=Console(stderr=True), auto_refresh=False, transient=True, vertical_overflow="crop",
                           redirect_stdout=sys.stdout.isatty())

    def show_status(self, text: str) -> None:
        """The line below the table."""
        self.status = text

    def run(self) -> None:
        self.table_on_screen.update(self.table(), refresh=True)
        while not self.over.wait(EVERY):
            self.table_on_screen.update(self.table(), refresh=True)

    def table(self) -> Table:
        from rich.table import Table

        rows = [row_of(job, self.since) for job in self.jobs]
        counts = Counter(row.state for row in rows)
        said = ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])
        caption = "\n".join([said, self.status or _left(self.jobs, rows)])
        table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
        for name in ("site", "arch", "sparsity", "seed", "tokens", "L0", "FVU", "dead", "state"):
            table.add_column(name, justify="left" if name in ("site", "arch", "state") else "right", no_wrap=True)
        for job, row in _most_important(list(zip(self.jobs, rows, strict=True)), shutil.get_terminal_size().lines - 4):
            table.add_row(*_cells(job, row, self.curves[job.folder]), style=STYLES[row.state])
        return table


def row_of(job: Job, since: float) -> Row:
    """The state of a job. Files older than `since` are of an earlier attempt."""
    state = files.state(job.folder)
    if state == "finished":
        return Row(state, dict(files.numbers(job.folder)))
    numbers = files.latest(job.folder)
    if state == "failed":
        return Row(state, numbers)
    curve = job.folder / files.CURVE
    if not curve.is_file() or curve.stat().st_mtime < since:
        return Row("waiting", numbers)
    return Row("evaluating" if numbers.get("tokens", 0) >= job.settings["tokens"] else "training", numbers)


def _most_important(rows: list[tuple[Job, Row]], most: int) -> list[tuple[Job, Row]]:
    """The rows that fit: failed and in training first, then finished, then waiting."""
    order = ("failed", "training", "evaluating", "finished", "waiting")
    kept = sorted(range(len(rows)), key=lambda i: order.index(rows[i][1].state))[: max(most, 1)]
    return [rows[i] for i in sorted(kept)]


def _cells(job: Job, row: Row, curve: str) -> list[str]:
    cfg, numbers = job.settings, row.numbers
    number = {key: format(numbers[key], form) if numbers.get(key) is not None else "-"
              for key, form in (("l0", ".1f"), ("fvu", ".4f"), ("dead", ".1%"))}
    place = f"{cfg['model']['name']} {cfg['site']['name']}.{cfg['layer']}"
    l0 = number["l0"] + ("" if target(cfg) is None else f" of {shown_target(cfg)}")
    seen = [f"{numbers.get('tokens') or 0:,.0f}", l0, number["fvu"], number["dead"]]
    return [place, curve, shown_target(cfg), str(cfg["seed"]), *seen, row.state]


def _left(jobs: Sequence[Job], rows: Sequence[Row]) -> str:
    """Speed and remaining time of the slowest SAE in training."""
    times = [
        ((job.settings["tokens"] - row.numbers["tokens"]) / row.numbers["tokens_per_second"], row.numbers["tokens_per_second"])
        for job, row in zip(jobs, rows, strict=True)
        if row.state == "training" and row.numbers.get("tokens_per_second")
    ]
    if not times:
        return ""
    seconds, rate = max(times)
    return f"{rate:,.0f} tokens/s, {duration(seconds)} left in training"
