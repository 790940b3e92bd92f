"""The keys by which the folders of a sweep are named: those that a command sweeps, and those that folders name already."""
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from saesweep.storage import variants
from saesweep.sweep import per_arch

PLACES = ("name", "hydra.sweep.dir", "hydra.sweep.subdir")  # what they refer to needs no further part


def names(overrides: Iterable[Override], sweep: Any, archs: Collection[str]) -> list[str]:
    """For hydra.callbacks.refuse.swept: dotted keys and short names. sweep: its folder."""
    return list(dict.fromkeys([*_swept(list(overrides), archs), *named(Path(str(sweep)))]))


def _swept(overrides: Collection[Override], archs: Collection[str]) -> list[str]:
    places = " ".join(str(one.input_line) for one in overrides if one.key_or_group in PLACES)
    left = ("model", "site", "arch", *re.findall(r"\$\{([\w.]+)\}", places))
    keys = [str(one.key_or_group) for one in overrides if one.is_sweep_override()]
    plain = [per_arch.plain(key) if per_arch.arch_of(key, archs) else key for key in keys]
    return [key for key in plain if key not in left and variants.is_own(key)]


def named(sweep: Path) -> list[str]:
    """The short names of the keys that its folders name."""
    folders = (folder for folder in sweep.glob("*/*/*,*=*") if any(folder.glob("*/.hydra")))
    return list(dict.fromkeys(name for folder in sorted(folders) for name in variants.named_by(folder.name)))
