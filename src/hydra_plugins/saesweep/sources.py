"""Where the choices of a group and `sweeps=...` are looked up, and the resolvers of conf/train.yaml."""
import copy
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from saesweep.config.ranges import whole
from saesweep.runtime import program
from saesweep.storage.files import flat, job_name
from saesweep.storage.variants import folder_name
from saesweep.sweep import per_arch
from saesweep.sweep.composed import MERGE, LoadedOnce, MergedOnce

YOURS = "yours"  # the provider of what stands in the working directory


class SweepsSource(FileConfigSource):
    """sweeps://ROOT: the folder `sweeps` of ROOT as a config group, and nothing else of ROOT. `--help` walks through
    all groups, and with file://ROOT it would walk through outputs/ and any virtual environment there."""

    @staticmethod
    def scheme() -> str:
        return "sweeps"

    def groups(self) -> tuple[str, ...]:
        return ("sweeps",)

    def is_group(self, config_path: str) -> bool:
        return self._holds(config_path) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return self._holds(config_path) and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return super().list(config_path, results_filter) if self._holds(config_path) else []

    def load_config(self, config_path: str) -> ConfigResult:
        """A file that takes the place of one of the program's is named on stderr, once."""
        if self.provider == YOURS:
            _note_replaced(Path(self.path), self._normalize_file_name(config_path))
        return super().load_config(config_path)

    def _holds(self, config_path: str) -> bool:
        return Path(config_path).parts[:1] in ((), *((group,) for group in self.groups()))


class ConfSource(SweepsSource):
    """conf://FOLDER: a user's files for the groups of the program. What else FOLDER holds may belong to another program."""

    @staticmethod
    def scheme() -> str:
        return "conf"

    def groups(self) -> tuple[str, ...]:
        return ("local", *(path.name for path in (program.root() / "conf").iterdir() if path.is_dir()))


class SearchPath(SearchPathPlugin):
    """In place of hydra.searchpath in conf/train.yaml, which `--help` and the shell completion do not look at.

    A user's own conf/ and sweeps/ in the working directory come first where the installed program was called.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        root = os.environ.get(program.ROOT)
        if root is None:  # another Hydra application
            return
        if own := program.own_folder(Path(root)):
            search_path.prepend(YOURS, f"conf://{own}/conf", anchor="main")
            search_path.append(YOURS, f"sweeps://{own}")
        search_path.append("saesweep", f"sweeps://{root}")


@cache
def _note_replaced(folder: Path, name: str) -> None:
    own = folder / name
    replaced = Path(os.environ[program.ROOT]) / ("" if name.startswith("sweeps/") else "conf") / name
    if own.is_file() and replaced.is_file() and own.read_bytes() != replaced.read_bytes():
        print(f"{os.path.relpath(own)} is read in place of the program's own {name}", file=sys.stderr)


def job_folder(
    model: str, site: str, layer: int, arch: str, sparsity: int, seed: int, coefficient: float | None,
    swept: Sequence[str] | None = None, *, _root_: Any = None,
) -> str:
    """What differs between the SAEs of a sweep, as a path. swept: further keys (sweep/swept.py). _root_: the config."""
    if swept:
        arch = folder_name(arch, _settings(_root_), swept)
    return f"{model}/{site}.{whole(layer)}/{arch}/{job_name(sparsity, coefficient, seed)}"


def _settings(root: Any) -> dict[str, Any]:
    """The values of a config by dotted key, resolved."""
    nodes: Any = OmegaConf.to_container(root)
    values = {key: OmegaConf.select(root, key) for key, _ in flat({key: nodes[key] for key in nodes if key != "hydra"})}
    return {key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for key, value in values.items()}


def register() -> None:
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("called", program.called, replace=True)
    # Hydra documents no way to give it another loader: this is private in all of hydra-core>=1.3.8,<1.5, the pinned range.
    setattr(ConfigLoaderImpl, "load_configuration", LoadedOnce(per_arch.load))  # noqa: B010
    setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", MergedOnce(MERGE))  # noqa: B010
    # Hydra 1.3 copies its sources for every job and, for --help, for every group, and with this one the store of all its
    # own configs, which a source only reads: 40% of the time of --help.
    setattr(StructuredConfigSource, "__deepcopy__", lambda source, memo: copy.copy(source))  # noqa: B010


register()
