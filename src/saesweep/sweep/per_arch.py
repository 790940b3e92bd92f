"""Overrides of one architecture of a sweep: `arch=jumprelu,topk jumprelu.warm_start=0`.

The first part is a choice of `arch`. For its jobs `jumprelu.warm_start=0` is `arch.warm_start=0`, `jumprelu.width=1024` is
`width=1024`; for those of other architectures it is nothing. Jobs that are then the same are one job.
"""
import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import DictConfig

from saesweep.config.schema import Train
from saesweep.errors import UsageError

WORD = re.compile(r"([+~]*)([^.=@+~/]+)\.([^=@]+)(=.*|)", re.DOTALL)
KEYS = (*Train.__annotations__, "hydra")  # at the top of the config
LOAD = ConfigLoaderImpl.load_configuration


def load(loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any,
         **more: Any) -> DictConfig:
    """In place of Hydra's ConfigLoaderImpl.load_configuration, which knows no such overrides."""
    if not any((found := WORD.fullmatch(word)) and found[2] not in KEYS for word in overrides):
        return LOAD(loader, config_name, overrides, run_mode, *args, **more)
    archs = loader.get_group_options("arch")
    common = [word for word in overrides if arch_of(word, archs) is None]
    config = LOAD(loader, config_name, common, run_mode, *args, **more)
    if run_mode == RunMode.MULTIRUN:  # for the sweeper, which makes jobs of them
        config.hydra.overrides.task = [word for word in overrides if word not in config.hydra.overrides.hydra]
        return config
    chosen = config.hydra.runtime.choices.get("arch")
    own = [plain(word) for word in overrides if word not in common and arch_of(word, archs) == chosen]
    return LOAD(loader, config_name, [*common, *own], run_mode, *args, **more) if own else config


def arch_of(word: str, archs: Collection[str]) -> str | None:
    """The architecture whose override this is, of the choices `archs`."""
    found = WORD.fullmatch(word)
    return found[2] if found and found[2] in archs and found[2] not in KEYS else None


def plain(word: str) -> str:
    """The override without its architecture."""
    found = WORD.fullmatch(word)
    assert found, word
    return f"{found[1]}{found[3] if found[3].split('.')[0] in KEYS else f'arch.{found[3]}'}{found[4]}"


def refuse(key: str, typed: str, swept: Sequence[str], archs: Collection[str]) -> None:
    """Raises UsageError for an override of an architecture that this sweep does not have, or that there is not."""
    first, dot, rest = key.partition(".")
    if not dot or first in KEYS or first in swept:
        return
    if first in archs:
        raise UsageError(f"{typed}: is for arch={first}, and this sweep has arch={','.join(swept)}; write "
                         f"arch={','.join([*swept, first])}, or leave it out")
    if close := misspelt(first, archs):
        raise UsageError(f"{typed}: there is no architecture {first}; did you mean {close}.{rest}?")


def misspelt(first: str, archs: Collection[str]) -> str | None:
    """The architecture that is meant, where no key is nearer."""
    found = difflib.get_close_matches(first, [*archs, *KEYS], n=1)
    return found[0] if found and found[0] in archs else None
