"""`hydra/launcher=grouped`: jobs that can share an activation stream are trained together, in this process."""
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GroupedConf:
    _target_: str = "hydra_plugins.saesweep.grouped.GroupedLauncher"
    run: str | None = "saesweep.sweep.run.train_group"  # trains the jobs of one group; null: plain jobs, one by one


ConfigStore.instance().store(group="hydra/launcher", name="grouped", node=GroupedConf, provider="saesweep")


class GroupedLauncher(Launcher):
    def __init__(self, run: str | None):
        self.run = run

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from saesweep.sweep.launch import Setup, launch

        setup = Setup(self.run, self.hydra_context, self.task_function, self.config)
        return launch(setup, job_overrides, initial_job_idx)
