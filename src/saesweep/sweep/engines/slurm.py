"""`hydra/launcher=slurm`: one Slurm job per group, submitted through submitit; a task per device of trainer.devices.

A job that is requeued (preemption, node failure, time limit) resumes from its last checkpoint. A cancelled one saves and
exits; the same command resumes it. The sweep's folder must be on a file system that all nodes see.
"""
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.runtime import signals
from saesweep.sweep.engines import worker
from saesweep.sweep.engines.base import GRACE, Engine, Results
from saesweep.sweep.jobs import Job, shown

log = logging.getLogger(__name__)
LIVE = ("PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "COMPLETING", "SUSPENDED", "PREEMPTED", "RESIZING")


class Slurm(Engine):
    """parameters: of submitit's Slurm executor, such as partition, time (minutes), gpus_per_node, mem, account, setup."""

    is_here = False

    def __init__(self, poll: float, parameters: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UsageError("hydra/launcher=slurm: needs the extra: pip install -e '.[slurm]'") from error
        self.submitit, self.poll, self.parameters = submitit, poll, dict(parameters)
        self.jobs: list[tuple[Path, Any]] = []

    def __exit__(self, *error: object) -> None:
        """Running jobs save and exit; pending ones are cancelled."""
        live = [(place, job) for place, job in self.jobs if _state(job.job_id) in LIVE]
        for place, job in live:
            (place / "stop").touch()
            if _state(job.job_id) == "PENDING":
                job.cancel()
        until = time.monotonic() + GRACE
        while any(_state(job.job_id) in LIVE for _, job in live) and time.monotonic() < until:
            time.sleep(self.poll)
        for _, job in live:
            job.cancel(check=False)

    def submit(self, run: str, group: Sequence[Job]) -> int:
        place, trainer = worker.request(run, group), group[0].settings["trainer"]
        executor = self.submitit.SlurmExecutor(folder=place / "submitit")
        executor.update_parameters(
            job_name=f"saesweep-{group[0].sweep.name}", nodes=trainer.get("num_nodes", 1),
            ntasks_per_node=worker.devices(trainer), **self.parameters,
        )
        job = executor.submit(task, place)
        log.info("job %s: %s", job.job_id, ", ".join(shown(one.folder) for one in group))
        self.jobs.append((place, job))
        return len(self.jobs) - 1

    def results(self, ticket: int) -> Results:
        (place, job), said = self.jobs[ticket], ""
        while (state := _state(job.job_id)) in LIVE:
            if state != said:
                log.info("job %s: %s", job.job_id, state.lower())
                said = state
            time.sleep(self.poll)
        return worker.results(place, f"Slurm says {state} of job {job.job_id}; its output is in {place / 'submitit'}")


def task(place: Path) -> None:
    """One rank, started by srun."""
    import submitit

    if int(os.environ["SLURM_NTASKS"]) > 1:
        submitit.helpers.TorchDistributedEnvironment().export(overwrite=True)
        os.environ["TORCHELASTIC_RUN_ID"] = os.environ["SLURM_JOB_ID"]  # Lightning then behaves as under torch.distributed.run
    requeue = []

    def near_the_limit(*_: object) -> None:
        requeue.append(True)
        signals.request_stop()

    signals.install_handler(signal.SIGUSR2, near_the_limit)
    try:
        worker.main(place)
    except SystemExit:
        if requeue and os.environ["SLURM_PROCID"] == "0":
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        raise


def _state(job: str) -> str:
    """The job's state from slurmctld, since a cluster may have no accounting."""
    shown = subprocess.run(["scontrol", "show", "job", job, "--oneliner"], capture_output=True, text=True)
    words = [word for word in shown.stdout.split() if word.startswith("JobState=")]
    return words[0].removeprefix("JobState=") if words else "FORGOTTEN"
