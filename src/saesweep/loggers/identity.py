"""How the loggers identify an SAE: its names, folder, settings, and the command that trains it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from saesweep.config.settings import own_settings, target
from saesweep.storage import files, variants


@dataclass(frozen=True)
class MemberInfo:
    """`config` is the SAE's whole composed config as plain containers."""

    folder: Path  # outputs/<sweep>/<model>/<site>.<layer>/<arch>/, and files.job_name
    config: Mapping
    sweep: str
    model: str
    site: str
    layer: int
    arch: str
    sparsity: int | float | None  # target L0; None with a fixed coefficient
    seed: int

    @classmethod
    def of(cls, config: Mapping, folder: Path) -> "MemberInfo":
        """config: all settings of the SAE, resolved."""
        model, site, arch = (config[key]["name"] for key in ("model", "site", "arch"))
        return cls(folder, config, config["name"], model, site, config["layer"], arch, target(config), config["seed"])

    @property
    def aim(self) -> str:
        """Target L0 or fixed coefficient, and seed: the last folder of the path."""
        return self.folder.name

    @property
    def path(self) -> str:
        """The job's folder, relative to the sweep's."""
        return Path(*self.folder.parts[-4:]).as_posix()

    @property
    def sweep_folder(self) -> Path:
        return self.folder.parents[3]

    @cached_property
    def id(self) -> str:
        """The id of its W&B run: the same for the same settings, so that a resumed job continues its run."""
        return digest(self.sweep, self.path, own_settings(self.config))

    @cached_property
    def command(self) -> str:
        """The command that trains this SAE alone."""
        return files.command(self.folder)

    def shown(self) -> dict:
        """The config for a dashboard: what one filters by as plain values at the top, the groups' settings under `settings`."""
        given = {key: value for key, value in self.config.items() if key != "logger"}
        groups = {key: value for key, value in given.items() if isinstance(value, Mapping)}
        plain = {key: value for key, value in given.items() if key not in groups}
        named = {key: group["name"] for key, group in groups.items() if "name" in group}
        facts = {key: getattr(self, key) for key in ("model", "site", "layer", "arch", "sparsity", "seed", "aim", "path")}
        return {**plain, **named, **facts, "settings": groups}


def labels(jobs: Sequence[Mapping], folders: Sequence[Path]) -> list[str]:
    """The label of each SAE: topk/32, or resid.9/topk/32 or gpt2/resid.9/topk/32 in a sweep of several sites or models."""
    places = [(job["model"]["name"], f"{job['site']['name']}.{job['layer']}") for job in jobs]
    known = {*places}
    if folders and folders[0].parts[-4:-2] == places[0]:
        known |= {file.parts[-5:-3] for file in folders[0].parents[3].glob("*/*/*/*/.hydra")}
    kept = slice(0 if len({model for model, _ in known}) > 1 else 1 if len(known) > 1 else 2, 2)
    names = [(job["arch"]["name"], files.job_name(job["sparsity"], job["arch"]["coefficient"], job["seed"])) for job in jobs]
    return ["/".join([*place[kept], *name]) for place, name in zip(places, names, strict=True)]


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
