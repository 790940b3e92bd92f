"""Hydra's sweepers compose the config of every job to check it, before the launcher needs the same: it is composed once."""
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig


class Remembering:
    """In place of `load_sweep_config` of Hydra's loader; it keeps each config until the launcher takes it."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.load = loader.load_sweep_config
        self.kept: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        found = self.kept[tuple(sweep_overrides)] = self.load(master_config, sweep_overrides)
        return found

    def take(self, master_config: DictConfig, words: Sequence[str]) -> DictConfig:
        """The config of a job, as the sweeper composed it; composed here by a sweeper that checks none."""
        kept = self.kept.pop(tuple(words), None)
        return self.load(master_config, list(words)) if kept is None else kept


def remember(loader: ConfigLoader) -> Remembering:
    """From now on the loader remembers."""
    if not isinstance(known := loader.load_sweep_config, Remembering):
        setattr(loader, "load_sweep_config", known := Remembering(loader))  # noqa: B010
    return known
