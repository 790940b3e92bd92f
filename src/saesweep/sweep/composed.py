"""What Hydra composes twice is composed once, which is a third of the time that a sweep of few jobs takes to be composed.

Its sweepers compose the config of every job to check it, before the launcher needs the same. The sweep's own config is
composed for its hydra.mode alone, without a look at what is swept, and then with the mode that `-m` stands for. The jobs of
a sweep that differ in values alone merge the same files.
"""
import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

MERGE = ConfigLoaderImpl._compose_config_from_defaults_list  # Hydra reads its plugins again and again, this file once
MODE = "hydra.mode=MULTIRUN"  # what Hydra adds to the overrides for -m


class InPlace:
    """A method of Hydra's loader: `of` is called with the loader first."""

    of: Callable[..., DictConfig]

    def __get__(self, loader: ConfigLoaderImpl | None, owner: type | None = None) -> Callable[..., DictConfig]:
        return self.of if loader is None else partial(self.of, loader)


class LoadedOnce(InPlace):
    """In place of Hydra's `load_configuration`, by which it composes every config. load: what composes."""

    def __init__(self, load: Callable[..., DictConfig]) -> None:
        self.load = load
        self.kept: tuple[ConfigLoaderImpl, list[str], DictConfig] | None = None

    def of(self, loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode,
           from_shell: bool = True, validate_sweep_overrides: bool = True) -> DictConfig:
        if run_mode == RunMode.MULTIRUN and validate_sweep_overrides and (kept := self._taken(loader, overrides)):
            parsed = OverridesParser.create().parse_overrides(overrides)
            loader.validate_sweep_overrides_legal(overrides=parsed, run_mode=run_mode, from_shell=from_shell)
            return kept
        found = self.load(loader, config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        if run_mode == RunMode.MULTIRUN and not validate_sweep_overrides:
            self.kept = loader, [*overrides], found
        return found

    def _taken(self, loader: ConfigLoaderImpl, overrides: list[str]) -> DictConfig | None:
        """What was composed for the mode, with the mode."""
        kept, self.kept = self.kept, None
        if kept is None or kept[0] is not loader or overrides not in (kept[1], [*kept[1], MODE]):
            return None
        config: Any = kept[2]
        if overrides != kept[1]:
            config.hydra.mode = RunMode.MULTIRUN
            config.hydra.overrides.hydra.append(MODE)
        return config


class MergedOnce(InPlace):
    """In place of Hydra's `_compose_config_from_defaults_list`, which merges files, not values. merge: what merges."""

    def __init__(self, merge: Callable[..., DictConfig]) -> None:
        self.merge = merge
        self.kept: WeakKeyDictionary[ConfigLoaderImpl, dict[str, DictConfig]] = WeakKeyDictionary()

    def of(self, loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        kept = self.kept.setdefault(loader, {})
        files = repr((defaults, repo.get_sources()))
        if files not in kept:
            kept[files] = self.merge(loader, defaults, repo)
        return copy.deepcopy(kept[files])


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
