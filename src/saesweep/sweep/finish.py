"""What a single run and a sweep do alike around the training: ask for its cost before, show the Pareto table after."""
from collections.abc import Sequence
from typing import Any

from saesweep.sweep.jobs import Job, shown


def estimate(group: Sequence[Job]) -> dict[str, Any]:
    from saesweep.sweep import probe

    return probe.estimate([job.cfg for job in group])


def show_pareto(job: Job) -> None:
    """The Pareto table of the job's sweep, on disk and on the screen; W&B gets it from the disk (summary.py)."""
    from saesweep import pareto, wandb_runs

    found = pareto.report([job.sweep])
    files = pareto.write(found, job.sweep)
    print(f"\n{pareto.text(found)}\n", *map(shown, files), sep="\n", flush=True)
    if (command := wandb_runs.sync_command(job.sweep)) is not None:
        print(f"\nto send the offline runs to W&B: {command}", flush=True)
