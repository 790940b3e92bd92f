"""Where the groups of a sweep run: `hydra/launcher=grouped` (here), `pool` (several at once), `slurm`, `ray`.

    with engine: tickets = [engine.submit(run, group) for each]; then engine.results(ticket) for each, in order

Leaving the block early, by a signal or an error, lets every group that runs save and end.
"""
from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from saesweep.config.instantiate import locate
from saesweep.errors import UsageError
from saesweep.runtime import screen
from saesweep.sweep.engines import join, worker
from saesweep.sweep.jobs import Job

log = logging.getLogger(__name__)
Results = list[dict[str, Any] | Exception]
GRACE = 60.0  # seconds that ranks get to save once they were told to stop
OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@runtime_checkable
class Engine(Protocol):
    is_here: bool  # on this machine, so that a probe tells what it will take

    def __enter__(self) -> Engine: ...
    def __exit__(self, *_: object) -> None: ...
    def submit(self, run: str, group: Sequence[Job]) -> int: ...
    def results(self, ticket: int) -> Results: ...


def engine_of(chosen: Mapping[str, Any] | None) -> Engine:
    """chosen: hydra.launcher.engine."""
    if chosen is None:
        return Here()
    settings = {key: value for key, value in chosen.items() if key != "kind"}
    if chosen["kind"] == "pool":
        return Pool(**settings)
    if chosen["kind"] == "slurm":
        from saesweep.sweep.engines.slurm import Slurm

        return Slurm(**settings)
    if chosen["kind"] == "ray":
        from saesweep.sweep.engines.ray import Ray

        return Ray(**settings)
    raise UsageError(f"hydra.launcher.engine.kind={chosen['kind']}: choose pool, slurm or ray")


def place_of(group: Sequence[Job]) -> Path:
    """A folder that all ranks see, wherever they are; the same for the same group."""
    first = group[0]
    return first.sweep / ".groups" / "-".join(first.folder.relative_to(first.sweep).parts)


@dataclass
class Group:
    run: str
    jobs: Sequence[Job]
    process: subprocess.Popen | None = None
    devices: list[Any] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return place_of(self.jobs)

    @property
    def ranks(self) -> int:
        return worker.devices(self.jobs[0].settings["trainer"])

    def start(self, environment: Mapping[str, str]) -> None:
        """A session of its own: whatever ends it ends all of it."""
        let_go()
        words = worker.command(self.place, self.jobs[0].settings["trainer"])
        worker.request(self.place, self.run, self.jobs)
        kept = {key: value for key, value in os.environ.items() if key not in OF_RANKS}
        kept |= {worker.WATCH: str(os.getpid())}
        told = (self.place / "output.txt").open("w") if screen.is_live() else None  # the table has the terminal
        self.process = subprocess.Popen(words, env=kept | environment, start_new_session=True, stdout=told, stderr=told)

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            (self.place / "stop").touch()

    def stop(self) -> None:
        """It saves and ends."""
        if self.process is None:
            return
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def results(self) -> Results:
        code = self.process.wait()
        self.stop()
        found = worker.results(self.place, f"exit code {code}")
        forget(self.place)
        return found


def let_go() -> None:
    """Frees the language model that the plan's probe has loaded, before other processes start."""
    if inputs := sys.modules.get("saesweep.sweep.inputs"):
        inputs.let_go()


def forget(place: Path) -> None:
    """What was needed while it ran."""
    shutil.rmtree(place)
    with suppress(OSError):  # others may still run
        place.parent.rmdir()


def threads(shares: int) -> dict[str, str]:
    """The cores of this machine shared out, unless the user has done so."""
    count = str(max(1, len(os.sched_getaffinity(0)) // shares))
    return {key: os.environ.get(key, count) for key in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}


class Here:
    """One group after the other: in this process, or in one process per device."""

    is_here = True

    def __init__(self) -> None:
        self.groups: list[Group] = []

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self.groups:
            group.stop()
            join.over(group.place.parent)

    def submit(self, run: str, group: Sequence[Job]) -> int:
        self.groups.append(Group(run, group))
        if group[0].settings["trainer"].get("num_nodes", 1) > 1:
            join.expect(self.groups[-1].place.parent)
        return len(self.groups) - 1

    def results(self, ticket: int) -> Results:
        group = self.groups[ticket]
        if worker.world_size(group.jobs[0].settings["trainer"]) == 1:
            function = locate(group.run, "hydra.launcher.run")
            return function([job.settings for job in group.jobs], [job.folder for job in group.jobs])
        group.start(threads(group.ranks))
        return group.results()


class Pool:
    """As many groups at once as there are devices for; each gets ids of its own, as CUDA_VISIBLE_DEVICES."""

    is_here = True

    def __init__(self, devices: Sequence[Any]) -> None:
        if not isinstance(devices, list | tuple):
            raise UsageError(f"hydra.launcher.engine.devices={devices}: must be a list of devices, such as [0,1]")
        self.all, self.free = list(devices), list(devices)
        self.groups: list[Group] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self.groups:
            group.ask_to_stop()  # all of them, before one is waited for
        for group in self.groups:
            group.stop()

    def submit(self, run: str, group: Sequence[Job]) -> int:
        self.groups.append(Group(run, group))
        if self.groups[-1].ranks > len(self.all):
            raise UsageError(f"trainer.devices={self.groups[-1].ranks}: hydra.launcher.engine.devices has {len(self.all)}")
        return len(self.groups) - 1

    def results(self, ticket: int) -> Results:
        group = self.groups[ticket]
        self._advance()
        while group.process is None or group.process.poll() is None:
            time.sleep(0.2)
            self._advance()
        return group.results()

    def _advance(self) -> None:
        """What has ended gives its devices back; what waits gets them, in order."""
        for group in self.groups:
            if group.devices and group.process.poll() is not None:
                self.free += group.devices
                group.devices = []
        for group in (g for g in self.groups if g.process is None):
            if group.ranks > len(self.free):
                break
            group.devices, self.free = self.free[: group.ranks], self.free[group.ranks :]
            seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, group.devices))}
            log.info("on %s: %s", seen["CUDA_VISIBLE_DEVICES"], ", ".join(str(job.folder.name) for job in group.jobs))
            group.start(seen | threads(len(self.all)))
