"""Where the files of an SAE are, and which of them are read: a folder, a file, or owner/name/folder of the Hugging Face hub."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saesweep.errors import UsageError
from saesweep.lm.hub import Place, brief, files_at, place

LABELS = ("cfg.json", "config.json", "runner_cfg.json", "hyperparams.json")  # what stands beside the weights
ABOVE = "../config.json"  # of a run of sparsify


class Source(NamedTuple):
    typed: str  # by the user
    folder: Path
    weights: str  # the file of the weights, relative to the folder
    place: str  # owner/name/folder/file of the hub, or the absolute path: some formats say what they are in it alone
    repository: str | None = None
    commit: str | None = None

    def json(self, name: str, required: bool = True) -> Mapping[str, Any]:
        """A file beside the weights; empty where it is not there and need not be. Raises UsageError."""
        file = self.folder / name
        if not file.is_file() and not required:
            return {}
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.typed}: {name} cannot be read ({brief(error)}); it must lie beside {self.weights}"
                             ) from error
        if not isinstance(found, dict):
            raise UsageError(f"{self.typed}: {name} holds no JSON object; give the folder of an SAE")
        return found

    def tensors(self) -> dict[str, Any]:
        """The file of the weights; no code in it is run. Raises UsageError."""
        file, read = self.folder / self.weights, {".safetensors": load_file, ".npz": _npz, ".pt": _pickled}
        try:
            found = read[file.suffix](file)
        except (OSError, ValueError, RuntimeError, SafetensorError, EOFError) as error:
            raise self.refuse(self.weights, None, None, f"cannot be read ({brief(error)}); copy it again") from error
        if not isinstance(found, dict):
            raise self.refuse(self.weights, None, None, f"holds a {type(found).__name__}; tensors by name are needed")
        return found

    def take(self, tensors: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str] = ()) -> list[Any]:
        """The tensors with these names, those that are needed in fp32. Raises UsageError where one lacks or is not known."""
        lacking = [name for name in needed if name not in tensors]
        if lacking:
            why = f"has no {', '.join(lacking)}, only {', '.join(map(str, tensors)) or 'nothing'}; is it another SAE's file?"
            raise self.refuse(self.weights, None, None, why)
        if unknown := [str(name) for name in tensors if name not in (*needed, *optional)]:
            raise self.refuse(self.weights, None, None, f"has {', '.join(unknown)} too, and what that does is not known here")
        return [tensors[name].float() for name in needed]

    def require_unscaled(self, tensors: Mapping[str, Any]) -> None:
        """Raises UsageError where `scaling_factor` is there and is not 1."""
        if float(torch.as_tensor(tensors.get("scaling_factor", 1.0)).float().sub(1).abs().max()) > 1e-6:
            raise self.refuse(self.weights, "scaling_factor", "not 1", "what it scales is not known here")

    def refuse(self, file: str, key: str | None, value: Any, why: str) -> UsageError:
        return UsageError(f"{self.typed}: {file}{'' if key is None else f': {key}={value}'}: {why}")


def locate(typed: str, known: Sequence[str]) -> Source:
    """known: the names of files of weights, as patterns. Raises UsageError where there is none of them, or several."""
    local = Path(typed).expanduser()
    if local.exists():
        return _within(typed, Path(os.path.abspath(local)), known)
    if (at := place(typed)) is None:
        raise UsageError(f"{typed}: there is no such file or folder; give one, or owner/name/folder of the Hugging Face hub")
    return _on_hub(typed, at, known)


def _within(typed: str, found: Path, known: Sequence[str], root: Path | None = None) -> Source:
    """root: what `place` is relative to."""
    of_file, folder = found.is_file(), found
    if of_file:  # below `checkpoints` of Llama Scope
        folder = found.parents[1] if found.parent.name == "checkpoints" else found.parent
    elif (found / "sae").is_dir():  # an SAE's folder of ours
        folder = found / "sae"
    fitting = (file for name in known for file in folder.glob(name) if not of_file or file == found)
    names = sorted(str(file.relative_to(folder)) for file in fitting)
    if len(names) > 1:
        raise UsageError(f"{typed}: holds {len(names)} SAEs: {', '.join(names)}; give one of them")
    if not names:
        below = sorted(file for name in known for file in folder.glob(f"**/{name}"))
        there = f"there are {len(below)} below it, such as {below[0]}" if below else f"looked for {', '.join(known)}"
        raise UsageError(f"{typed}: holds no SAE; {there}")
    place = folder / names[0]
    return Source(typed, folder, names[0], str(place.relative_to(root) if root else place))


def _on_hub(typed: str, at: Place, known: Sequence[str]) -> Source:
    """Only the files that are needed are downloaded, and none that are in the cache of this machine."""
    of_file = any(fnmatch(at.path.rpartition("/")[2], pattern.rpartition("/")[2]) for pattern in known)
    folder = at.path.rpartition("/")[0].removesuffix("/checkpoints") if of_file else at.path
    weights = [at.path] if of_file else [f"{folder}/{name}".lstrip("/") for name in known]
    patterns = [*weights, *(f"{folder}/{name}".lstrip("/") for name in LABELS), f"{folder.rpartition('/')[0]}/config.json"]

    def read(root: Path) -> Source:
        if not (root / at.path).exists():
            known_ones = ", ".join(known)
            raise UsageError(f"{typed}: {at.repository} has no {at.path}, or no SAE of a known format there ({known_ones})")
        found = _within(typed, root / at.path, known, root)
        return found._replace(place=f"{at.repository}/{found.place}", repository=at.repository, commit=root.name)

    return files_at(typed, at, patterns, read, "give a folder that holds its files")


def _npz(file: Path) -> dict[str, Tensor]:
    with np.load(file, allow_pickle=False) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def _pickled(file: Path) -> Any:
    """Raises ValueError where the file holds more than tensors and plain values."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # of the module that nothing here imports
            raise
        raise ValueError(f"it holds objects whose code would have to be run: {str(error).splitlines()[0]}") from error
