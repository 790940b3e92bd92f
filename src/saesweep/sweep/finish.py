"""What a single run and a sweep do alike around the training: ask for its cost before, show the Pareto table after."""
import logging
import warnings
from collections.abc import Sequence
from typing import Any

from saesweep.sweep.jobs import Job, shown


def estimate(group: Sequence[Job]) -> dict[str, Any]:
    from saesweep.sweep import probe

    quiet_lightning()
    return probe.estimate([job.cfg for job in group])


def show_pareto(job: Job) -> None:
    """The Pareto table of the job's sweep, on disk and on the screen; W&B gets it from the disk (summary.py)."""
    from saesweep import pareto, wandb_runs

    found = pareto.report([job.sweep])
    files = pareto.write(found, job.sweep)
    print(f"\n{pareto.text(found)}\n", *map(shown, files), sep="\n", flush=True)
    if (command := wandb_runs.sync_command(job.sweep)) is not None:
        print(f"\nto send the offline runs to W&B: {command}", flush=True)


def quiet_lightning() -> None:
    """Its own console handlers show every line a second time beside Hydra's; of the rest only warnings matter."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")  # Lightning 2.6's own use of torch 2.13
