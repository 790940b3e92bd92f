"""How the loggers identify an SAE: its names, folder, settings, and the command that trains it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from saesweep.config.settings import own_settings, target, unique_tokens
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
    variant: str = ""  # what else tells it from the others of its architecture: `width=4096 lr=0.002`

    @classmethod
    def of(cls, config: Mapping, folder: Path, variant: str = "") -> "MemberInfo":
        """config: all settings of the SAE, resolved."""
        model, site, arch = (config[key]["name"] for key in ("model", "site", "arch"))
        names = folder, config, config["name"], model, site, config["layer"], arch, target(config), config["seed"]
        return cls(*names, variant)

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
        facts |= {"variant": self.variant} if self.variant else {}
        facts |= {"unique_tokens": unique_tokens(self.config)} if "passes" in groups.get("activations", ()) else {}
        return {**plain, **named, **facts, "settings": groups}


def labels(jobs: Sequence[Mapping], folders: Sequence[Path]) -> list[str]:
    """The label of each SAE: topk/32, or resid.9/topk/32 or gpt2/resid.9/topk/32 in a sweep of several sites or models, and
    topk,width=4096/32 where further settings differ."""
    places = [(job["model"]["name"], f"{job['site']['name']}.{job['layer']}") for job in jobs]
    known = {*places}
    if folders and folders[0].parts[-4:-2] == places[0]:
        known |= {file.parts[-5:-3] for file in folders[0].parents[3].glob("*/*/*/*/.hydra")}
    kept = slice(0 if len({model for model, _ in known}) > 1 else 1 if len(known) > 1 else 2, 2)
    archs = [",".join(filter(None, [job["arch"]["name"], variants.written(pairs, ",")]))
             for job, pairs in zip(jobs, named(jobs, folders), strict=True)]
    aims = [files.job_name(job["sparsity"], job["arch"]["coefficient"], job["seed"]) for job in jobs]
    names = list(zip(archs, aims, strict=True))
    return ["/".join([*place[kept], *name]) for place, name in zip(places, names, strict=True)]


def named(jobs: Sequence[Mapping], folders: Sequence[Path]) -> list[variants.Pairs]:
    """Of each SAE of a group what tells it apart, within the group and, by its folder, within the sweep."""
    of_folders = [variants.of_folder(folder, job["arch"]["name"]) for job, folder in zip(jobs, folders, strict=False)]
    of_group = variants.variants(jobs)
    return [of_group[i] | (of_folders[i] if i < len(of_folders) else {}) for i in range(len(jobs))]


def curves(jobs: Sequence[Mapping], folders: Sequence[Path]) -> list[str]:
    """The architecture of each SAE and what else tells it apart: `topk width=4096`."""
    return [" ".join([job["arch"]["name"], *variants.written(pairs).split()])
            for job, pairs in zip(jobs, named(jobs, folders), strict=True)]


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
