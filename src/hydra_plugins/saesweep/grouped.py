"""`hydra/launcher=grouped`, `pool`, `slurm`, `ray`: jobs that can share an activation stream are trained together."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GroupedConf:
    _target_: str = "hydra_plugins.saesweep.grouped.GroupedLauncher"
    run: str | None = "saesweep.sweep.group.train_group"  # trains the jobs of one group; null: plain jobs, one by one
    engine: Any = None  # where groups run (sweep/engines.py); null: here, one after the other


ENGINES = {
    "grouped": None,
    "pool": {"kind": "pool", "devices": "???"},  # such as [0,1,2,3]
    "slurm": {"kind": "slurm", "poll": 5.0, "parameters": {"time": 1440}},
    "ray": {"kind": "ray", "address": None, "retries": 3},
}
for name, engine in ENGINES.items():
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=GroupedConf(engine=engine), provider="saesweep")


class GroupedLauncher(Launcher):
    def __init__(self, run: str | None, engine: Mapping[str, Any] | None):
        self.run, self.engine = run, engine

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from saesweep.sweep.composed import remember

        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        remember(hydra_context.config_loader)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from saesweep.sweep.launch import Setup, launch

        setup = Setup(self.run, self.engine, self.hydra_context, self.task_function, self.config)
        return launch(setup, job_overrides, initial_job_idx)
