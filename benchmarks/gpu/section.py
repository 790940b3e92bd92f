"""A section while it runs: its rows and notes, its time, and failures that end one measurement alone."""
from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import report
from saesweep.runtime.memory import out_of_memory


class Section:
    """sizes: its node of sizes.yaml; device: "cuda" or "cpu"; seconds: what it may take."""

    def __init__(self, name: str, title: str, sizes: dict[str, Any], device: str, seconds: float, folder: Path):
        self.sizes, self.device, self.folder, self.failed = sizes, torch.device(device), folder, False
        self.found: report.Found = {
            "name": name, "title": title, "status": "running", "seconds": 0.0, "tables": {}, "notes": [], "traceback": "",
            "began": time.time(), "until": time.time() + seconds,
        }
        self.say(f"{title} (at most {seconds:.0f} s)")

    def row(self, table: str, **values: Any) -> None:
        self.found["tables"].setdefault(table, []).append(values)
        self.say("  " + "  ".join(f"{name} {report.shown(value)}" for name, value in values.items() if value is not None))

    def note(self, text: str) -> None:
        self.found["notes"].append(text)
        self.say(f"  {text}")

    def fail(self, text: str, trace: str = "") -> None:
        """Something is wrong, which the section's status says too."""
        self.failed = True
        self.found["traceback"] += trace
        self.note(text)

    def time_left(self) -> float:
        return self.found["until"] - time.time()

    def each(self, cases: Iterable[tuple[str, Callable[[], None]]]) -> None:
        """Call each case, as long as there is time; one that raises is noted, and the next one follows."""
        for what, call in cases:
            if self.time_left() <= 0:
                self.note(f"no time was left for {what}")
                continue
            self.say(f"  {what}")
            try:
                call()
            except Exception as error:
                self._raised(what, error)
            gc.collect()
            torch.cuda.empty_cache()

    def _raised(self, what: str, error: Exception) -> None:
        if out_of_memory(error):
            self.note(f"{what}: out of memory")
        else:
            self.fail(f"{what}: {type(error).__name__}: {error}", f"{what}\n{traceback.format_exc()}\n")
        if not usable(self.device):
            raise error

    def end(self) -> None:
        self.found["status"] = "failed" if self.failed else "done"
        self.say(self.found["status"])

    def say(self, text: str) -> None:
        """Save all results, and show the line."""
        self.found["seconds"] = time.time() - self.found["began"]
        report.save(self.folder, self.found)
        print(f"[{self.found['seconds']:4.0f} s] {self.found['name']}: {text}", file=sys.stderr, flush=True)


def usable(device: torch.device) -> bool:
    """Whether the GPU still computes: after an illegal access no call of the process succeeds."""
    try:
        return float(torch.ones((), device=device)) == 1.0
    except Exception:
        return False
