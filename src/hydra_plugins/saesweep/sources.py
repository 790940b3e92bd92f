"""Where `sweeps=...` is looked up, and the resolver `job_folder` of conf/train.yaml."""
import copy
import os
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from saesweep.config.ranges import whole
from saesweep.results.files import job_name


class SweepsSource(FileConfigSource):
    """sweeps://ROOT: the folder `sweeps` of ROOT as a config group, and nothing else of ROOT. `--help` walks through
    all groups, and with file://ROOT it would walk through outputs/ and any virtual environment there."""

    @staticmethod
    def scheme() -> str:
        return "sweeps"

    def is_group(self, config_path: str) -> bool:
        return self._ours(config_path) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return self._ours(config_path) and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return super().list(config_path, results_filter) if self._ours(config_path) else []

    def _ours(self, config_path: str) -> bool:
        return Path(config_path).parts[:1] in ((), ("sweeps",))


class SweepsPath(SearchPathPlugin):
    """In place of hydra.searchpath in conf/train.yaml, which `--help` and the shell completion do not look at."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if root := os.environ.get("SAESWEEP_ROOT"):  # set by train.py
            search_path.append("saesweep", f"sweeps://{root}")


def job_folder(
    model: str, site: str, layer: int, arch: str, sparsity: int, seed: int, coefficient: float | None
) -> str:
    """What differs between the SAEs of a sweep, as a path."""
    return f"{model}/{site}.{whole(layer)}/{arch}/{job_name(sparsity, coefficient, seed)}"


def register() -> None:
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    # Hydra 1.3 copies its sources for every job and, for --help, for every group, and with this one the store of all its
    # own configs, which a source only reads: 40% of the time of --help.
    StructuredConfigSource.__deepcopy__ = lambda source, memo: copy.copy(source)


register()
