"""Where the model is that embeds text (`embedder` of conf/study/rules.yaml), and whether it is the one that is meant."""
from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.runtime.digests import sha256

WEIGHTS = "model.safetensors"


def located(embedder: Mapping[str, Any]) -> Path:
    """The folder of the model. Raises UsageError where it is missing, or its weights have another checksum.

    embedder.folder: a folder, or package/folder of an installed package, of which no code is run.
    """
    named = str(embedder["folder"])
    folder = Path(named).expanduser()
    if not folder.is_dir():
        package, _, inside = named.partition("/")
        folder = Path(_package(package) or "", inside)
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"embedding=true: embedder.folder={named} is no folder with {WEIGHTS}, on its own or in an installed "
                         f"package: {embedder['install']}")
    if embedder["sha256"] and (found := sha256(folder / WEIGHTS)) != embedder["sha256"]:
        raise UsageError(f"embedder.sha256={embedder['sha256']}: {folder / WEIGHTS} has {found}; install it again, or write "
                         "embedder.sha256=null if this is the model that you mean")
    return folder


def _package(name: str) -> str | None:
    """Its folder; it is not imported."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None
