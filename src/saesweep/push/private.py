"""What of an SAE's settings is for nobody else: paths of this machine, and where its training was logged."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from saesweep.config.schema import NOT_THE_SAES
from saesweep.storage import files

KEPT_OF_A_RUN = {"name": None, "trainer": ("name", "accelerator", "precision", "devices")}  # None: the whole value
ALWAYS = ("text.glob",)  # paths, also where they are relative
MODEL = "model.source.hub"  # a folder, or a repository
ELSEWHERE = re.compile(r"(file:/*)?(/|~|\.\.?/|[A-Za-z]:[\\/])")


class Public(NamedTuple):
    settings: dict[str, Any]
    rewritten: dict[str, tuple[str, str]]  # by dotted key: the value, and what is written in its place


def public(settings: Mapping[str, Any]) -> Public:
    """Those that determine the SAE, with the last part of each path; a model's folder is `./` and its last part."""
    kept = {key: value for key, value in settings.items() if key not in NOT_THE_SAES}
    for key, parts in KEPT_OF_A_RUN.items():
        if key in settings:
            kept[key] = settings[key] if parts is None else {part: settings[key].get(part) for part in parts}
    kept["cache"] = {"name": "none", "folder": None}
    found = {key: (value, _last_part(key, value)) for key, value in files.flat(kept) if _is_path(key, value)}
    rewritten = {key: pair for key, pair in found.items() if pair[0] != pair[1]}
    return Public(replaced(kept, rewritten), rewritten)


def replaced(node: Any, rewritten: Mapping[str, tuple[str, str]]) -> Any:
    """The node of a JSON or YAML file with every rewritten value, wherever it stands, as it was rewritten; of any other path
    the last part."""
    if isinstance(node, Mapping):
        return {key: replaced(value, rewritten) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, rewritten) for value in node]
    known = {old: new for old, new in rewritten.values()}
    return known.get(node, _last_part("", node) if _is_path("", node) else node) if isinstance(node, str) else node


def command(words: Sequence[str]) -> list[str]:
    """The overrides of a command as they may be seen, without those of keys that are left out."""
    found = []
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if key.split(".")[0].split("/")[0] in (*NOT_THE_SAES, "hydra", "local") or key.startswith("-"):
            continue
        found.append(f"{word.partition('=')[0]}={_last_part(key, value)}" if _is_path(key, value.strip("'\"")) else word)
    return found


def _is_path(key: str, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    folder = key == MODEL and (value.count("/") > 1 or Path(value).is_dir())
    return key in ALWAYS or folder or ELSEWHERE.match(value) is not None


def _last_part(key: str, value: str) -> str:
    name = PureWindowsPath(value.strip("'\"")).name  # which takes both kinds of slashes
    return f"./{name}" if key == MODEL else name
