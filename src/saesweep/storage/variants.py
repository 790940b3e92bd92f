"""Which settings tell SAEs apart, beside those that every table names: a width, a learning rate, a text.

They are found from the settings: of one architecture at one hook point, every key whose value differs. All SAEs of that hook
point that have the key are then named by it, as in `width=4096 lr=0.002`.
"""
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.config.ranges import whole
from saesweep.config.schema import NOT_THE_SAES, Control, Optimizer
from saesweep.config.settings import own_settings
from saesweep.errors import as_typed
from saesweep.old_names import LATER
from saesweep.storage import files

NAMED = ("model.name", "model.layer", "site.name", "layer", "arch.name", "arch.coefficient", "sparsity", "seed")  # by columns
OF_EVERY_ARCH = {f"arch.{part}.{key}" for part, node in (("control", Control), ("optimizer", Optimizer))
                 for key in node.__annotations__}
IMPORTED = "arch.imported.source"  # of an SAE that others have trained: only its width tells it from others of its curve
LONGEST = 40  # characters of a value

Pairs = dict[str, str]  # value by short name of the key


def variants(jobs: Sequence[Mapping[str, Any]]) -> list[Pairs]:
    """Of each SAE, by its settings."""
    return of_flat([flat_settings(job) for job in jobs])


def flat_settings(job: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine an SAE, by dotted key."""
    return dict(files.flat(own_settings(job)))


def of_flat(jobs: Sequence[Mapping[str, Any]]) -> list[Pairs]:
    """As `variants`, of flat_settings."""
    jobs = _with_later_keys(jobs)
    every = {key for job in jobs for key in job}
    places = [(*(job.get(key) for key in ("model.name", "site.name", "layer")), IMPORTED in job) for job in jobs]
    differing: dict[tuple, set[str]] = {}
    for place, arch in dict.fromkeys(zip(places, (job.get("arch.name") for job in jobs), strict=True)):
        alike = [job for job, at in zip(jobs, places, strict=True) if at == place and job.get("arch.name") == arch]
        differing.setdefault(place, set()).update(_differing(alike))
    return [_pairs(job, differing[place], every) for job, place in zip(jobs, places, strict=True)]


def _with_later_keys(jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """With the keys of LATER that another of the SAEs has, of arch another of its architecture."""
    def of(job: Mapping[str, Any], key: str) -> tuple[str, str | None]:
        return key, job.get("arch.name") if key.startswith("arch.") else None

    known = {of(job, key) for job in jobs for key in LATER if key in job}
    return [{key: value for key, value in LATER.items() if of(job, key) in known} | dict(job) for job in jobs]


def _differing(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ. What follows from the choice of a file, such as text=pile, is left to its name."""
    keys = dict.fromkeys(key for job in jobs for key in job if key not in NAMED and (IMPORTED not in job or key == "width"))
    values = {key: [shown(job[key]) if key in job else None for job in jobs] for key in keys}
    found = [key for key in keys if len(set(values[key])) > 1]
    chosen = {key.removesuffix(".name"): values[key] for key in found if re.fullmatch(r"\w+\.name", key)}

    def follows(key: str) -> bool:
        group = key.split(".")[0]
        both = group in chosen and key != f"{group}.name"
        return both and len({*zip(chosen[group], values[key], strict=True)}) == len({*chosen[group]})

    return [key for key in found if not follows(key)]


def _pairs(job: Mapping[str, Any], keys: Iterable[str], every: Collection[str]) -> Pairs:
    return {short(key, every): shown(job[key]) for key in sorted(keys, key=_order) if key in job}


def _order(key: str) -> tuple[int, str]:
    return key.count("."), key


def short(key: str, every: Collection[str]) -> str:
    """`lr` of arch.optimizer.lr: the shortest end that no other key of `every` has. `text` of text.name."""
    if re.fullmatch(r"\w+\.name", key):
        return key.removesuffix(".name")
    parts, others = key.split("."), {*every, *OF_EVERY_ARCH} - {key}
    ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
    taken = {other.split(".")[0] for other in others}
    return next((end for end in ends if end not in taken and not any(other.endswith(f".{end}") for other in others)), key)


def shown(value: Any) -> str:
    """A value without blanks and slashes; one that is long, or has signs that a path should not have, ends with a digest."""
    if isinstance(value, list) and value and all(type(one) in (int, float) for one in value):
        return "_".join(map(shown, value))
    plain = isinstance(value, str | int | float | bool | None)
    text = as_typed(whole(value)) if plain else json.dumps(value, sort_keys=True, default=str)
    kept = re.sub(r"[^\w.+-]+", "-", text).strip("-")
    if kept == text and len(text) <= LONGEST:
        return kept
    return f"{kept[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def written(pairs: Mapping[str, str], sep: str = " ") -> str:
    return sep.join(f"{name}={value}" for name, value in pairs.items())


def folder_name(arch: str, settings: Mapping[str, Any], swept: Iterable[str]) -> str:
    """`topk,width=4096,lr=0.002`: the architecture, and of the keys in `swept` (dotted, or short names) those that it has.

    settings: the whole config, by dotted key.
    """
    settings = {key: value for key, value in settings.items() if key in NAMED or is_own(key)}
    keys = {key for word in swept for key in _keys(word, settings)}
    return ",".join([arch, *filter(None, [written(_pairs(settings, keys, settings), ",")])])


def _keys(word: str, settings: Mapping[str, Any]) -> list[str]:
    if f"{word}.name" in settings or word in settings:
        return [word if word in settings else f"{word}.name"]
    named = [key for key in settings if short(key, settings) == word]
    return named or [key for key in settings if key.startswith(f"{word}.")]


def is_own(key: str) -> bool:
    """Whether the key determines the SAE, and no column names it."""
    return key == "trainer.precision" or (key.split(".")[0] not in (*NOT_THE_SAES, "hydra") and key not in NAMED)


def of_folder(folder: Path, arch: str) -> Pairs:
    """What the folder of a job names beside its architecture."""
    return named_by(folder.parent.name) if folder.parent.name.split(",")[0] == arch else {}


def named_keys(names: Iterable[str], job: Mapping[str, Any]) -> list[str]:
    """The dotted keys with these short names; of a choice, such as text, all its keys."""
    settings = LATER | flat_settings(job)
    return [key for key in settings for name in names if short(key, settings) == name or key.startswith(f"{name}.")]


def named_by(name: str) -> Pairs:
    """The inverse of folder_name, without the architecture."""
    return dict(part.split("=", 1) for part in name.split(",")[1:] if "=" in part)
