"""`hydra/sweeper=optuna`: optuna proposes batches of SAEs; each batch is one call of the launcher, which groups it."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    def __init__(self, params: Mapping[str, str] | None, **search: Any):
        """params: as of Hydra's own sweeper. search: of sweep/search.py."""
        self.params, self.search = params or {}, search

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        from saesweep.errors import exit_on_usage_error
        from saesweep.sweep.search import Search, refuse

        assert self.hydra_context and self.config is not None and self.launcher
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        with exit_on_usage_error():
            search = Search(**self.search)
            refuse(search, self.config)
            folder = Path(self.config.hydra.sweep.dir)
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.config, folder / "multirun.yaml")
            return search.run(words, folder, self.hydra_context.config_loader, self.launcher, self.config.plan)
