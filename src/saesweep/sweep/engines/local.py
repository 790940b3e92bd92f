"""Groups on this machine: one after the other (`hydra/launcher=grouped`), or several at once (`hydra/launcher=pool`)."""
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saesweep.config.instantiate import locate
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.runtime import console
from saesweep.sweep.engines import join, worker
from saesweep.sweep.engines.base import GRACE, Engine, Results, place_of
from saesweep.sweep.jobs import Job

log = logging.getLogger(__name__)
OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class GroupProcess:
    """A group in a process of its own, or in one per device."""

    run: str
    jobs: Sequence[Job]
    resources: Resources
    process: subprocess.Popen | None = None
    devices: list[Any] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return place_of(self.jobs)

    @property
    def ranks(self) -> int:
        return worker.devices(self.jobs[0].settings["trainer"])

    def start(self, environment: Mapping[str, str]) -> None:
        """In a session of its own: what ends the session ends all of it."""
        self.resources.release_model()
        words = worker.command(self.place, self.jobs[0].settings["trainer"])
        worker.request(self.run, self.jobs)
        kept = {key: value for key, value in os.environ.items() if key not in OF_RANKS}
        kept |= {worker.WATCH: str(os.getpid()), **environment}
        output = (self.place / "output.txt").open("w") if console.is_live() else None  # the table has the terminal
        self.process = subprocess.Popen(words, env=kept, start_new_session=True, stdout=output, stderr=output)

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            (self.place / "stop").touch()

    def stop(self) -> None:
        """Ask the ranks to save and end; kill them after GRACE seconds."""
        if self.process is None:
            return
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def results(self) -> Results:
        assert self.process is not None, "the group has not been started"
        code = self.process.wait()
        self.stop()
        return worker.results(self.place, f"exit code {code}")


def threads(shares: int) -> dict[str, str]:
    """Thread counts that divide this machine's cores, unless the user has set them."""
    count = str(max(1, len(os.sched_getaffinity(0)) // shares))
    return {key: os.environ.get(key, count) for key in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}


class LocalEngine(Engine):
    """One group after the other: in this process, or in one process per device."""

    is_here = True

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.groups: list[GroupProcess] = []

    def __exit__(self, *_: object) -> None:
        for group in self.groups:
            group.ask_to_stop()  # ask all before waiting for one
        for group in self.groups:
            group.stop()
            join.over(group.place.parent)

    def submit(self, run: str, group: Sequence[Job]) -> int:
        self.groups.append(GroupProcess(run, group, self.resources))
        if group[0].settings["trainer"].get("num_nodes", 1) > 1:
            join.expect(self.groups[-1].place.parent)
        return len(self.groups) - 1

    def results(self, ticket: int) -> Results:
        group = self.groups[ticket]
        if worker.world_size(group.jobs[0].settings["trainer"]) == 1:
            function = locate(group.run, "hydra.launcher.run")
            return function([job.settings for job in group.jobs], [job.folder for job in group.jobs], self.resources)
        group.start(threads(group.ranks))
        return group.results()


class Pool(LocalEngine):
    """As many groups at once as there are devices; each group gets its devices as CUDA_VISIBLE_DEVICES."""

    def __init__(self, devices: Sequence[Any], resources: Resources) -> None:
        super().__init__(resources)
        if not isinstance(devices, list | tuple):
            raise UsageError(f"hydra.launcher.engine.devices={devices}: must be a list of devices, such as [0,1]")
        self.all, self.free = list(devices), list(devices)

    def submit(self, run: str, group: Sequence[Job]) -> int:
        ticket = super().submit(run, group)
        if (wanted := self.groups[ticket].ranks) > len(self.all):
            raise UsageError(f"trainer.devices={wanted}: hydra.launcher.engine.devices has {len(self.all)}")
        return ticket

    def results(self, ticket: int) -> Results:
        group = self.groups[ticket]
        self._advance()
        while group.process is None or group.process.poll() is None:
            time.sleep(0.2)
            self._advance()
        return group.results()

    def _advance(self) -> None:
        """Free the devices of groups that have ended, and start waiting groups on them, in order."""
        for group in self.groups:
            if group.devices and group.process and group.process.poll() is not None:
                self.free += group.devices
                group.devices = []
        for group in (g for g in self.groups if g.process is None):
            if group.ranks > len(self.free):
                break
            group.devices, self.free = self.free[: group.ranks], self.free[group.ranks :]
            seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, group.devices))}
            log.info("on %s: %s", seen["CUDA_VISIBLE_DEVICES"], ", ".join(str(job.folder.name) for job in group.jobs))
            group.start(seen | threads(len(self.all)))
