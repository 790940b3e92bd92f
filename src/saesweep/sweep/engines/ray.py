"""`hydra/launcher=ray`: one Ray task per group, with the devices of its trainer; groups run as the cluster has room.

Ray restarts a task whose worker or node dies, and it resumes from its last checkpoint. The sweep's folder must be on a file
system that all nodes see; a group stays on one node.
"""
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.sweep.engines import worker
from saesweep.sweep.engines.base import GRACE, Engine, Results
from saesweep.sweep.jobs import Job, shown

log = logging.getLogger(__name__)


class Ray(Engine):
    """address: of a running cluster, such as auto; null: one is started on this machine. retries: of a task that dies."""

    is_here = False

    def __init__(self, address: str | None, retries: int) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]  (an extra)
        except ImportError as error:
            raise UsageError("hydra/launcher=ray: needs the extra: pip install -e '.[ray]'") from error
        self.ray, self.address, self.retries = ray, address, retries
        self.tasks: list[tuple[Path, Any]] = []

    def __enter__(self) -> "Ray":
        self.ray.init(address=self.address, include_dashboard=False, logging_level=logging.WARNING)
        return self

    def __exit__(self, *_: object) -> None:
        """Running tasks save and exit."""
        live = {task: place for place, task in self.tasks if not self._has_ended(task)}
        for place in live.values():
            (place / "stop").touch()
        if live:
            self.ray.wait(list(live), num_returns=len(live), timeout=GRACE)
        self.ray.shutdown()

    def submit(self, run: str, group: Sequence[Job]) -> int:
        trainer = group[0].settings["trainer"]
        if trainer.get("num_nodes", 1) > 1:
            raise UsageError("trainer.num_nodes: with hydra/launcher=ray a group stays on one node")
        place = worker.request(run, group)
        kind = "num_gpus" if trainer["accelerator"] in ("gpu", "cuda") else "num_cpus"
        options = {kind: worker.devices(trainer), "max_retries": self.retries, "num_returns": 1}
        task = self.ray.remote(**options)(_task).remote(str(place), os.getcwd(), worker.command(place, trainer))
        log.info("to ray: %s", ", ".join(shown(job.folder) for job in group))
        self.tasks.append((place, task))
        return len(self.tasks) - 1

    def results(self, ticket: int) -> Results:
        place, task = self.tasks[ticket]
        while not self._has_ended(task):
            time.sleep(0.2)
        try:
            how = f"exit code {self.ray.get(task)}"
        except self.ray.exceptions.RayError as error:
            how = f"Ray says {type(error).__name__}"
        return worker.results(place, how)

    def _has_ended(self, task: Any) -> bool:
        return bool(self.ray.wait([task], timeout=0)[0])


def _task(place: str, folder: str, words: list[str]) -> int:
    """Runs in a Ray worker, which only starts the ranks and is the process that they end with."""
    words = [sys.executable, *words[1:]]  # of the node
    environment = os.environ | {worker.WATCH: str(os.getpid())}
    with (Path(place) / "output.txt").open("ab") as output:
        return subprocess.run(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
