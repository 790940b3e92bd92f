"""A finished SAE, read back from its folder."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.instantiate import locate
from saesweep.data.normalisation import Statistics
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, hook_point
from saesweep.storage import checkpoints, files, on_hub
from saesweep.training.build import build


class LoadedSAE(SparseAutoencoder):
    """An SAE of its own architecture, with what it was trained on beside it."""

    config: dict[str, Any]  # all settings
    metrics: Mapping[str, int | float | None]  # docs/metrics.md
    parts: list[dict[str, Any]]  # the SAEs within it: `latents`, `l0` and `fvu` (docs/metrics.md)
    folder: Path
    point: HookPoint  # where it reads the language model
    statistics: Statistics  # of that hook point


def as_loaded(sae: Any, kind: type[LoadedSAE] = LoadedSAE) -> LoadedSAE:
    """The SAE itself, still of its architecture, that is of this kind too."""
    sae.__class__ = type(type(sae).__name__, (type(sae), kind), {})
    return sae


def load(folder: str | Path, device: str = "cpu", kind: type[LoadedSAE] = LoadedSAE) -> LoadedSAE:
    """A trained SAE: `encode` [tokens, d_in] -> [tokens, d_sae] and `decode` back, in raw activation units; `sae(x)` is both,
    and of a transcoder the estimate of its target, with what a skip transcoder adds.

    folder: on this machine, or owner/name/folder[@revision] of the Hugging Face hub, of which its own files are downloaded
    unless they are in the cache. Raises UsageError where it holds no finished SAE.
    """
    folder = on_hub.folder_of(folder).resolve()
    folder = folder.parent if folder.name == "sae" else folder
    if not (folder / files.NUMBERS).is_file():
        raise UsageError(f"{folder} holds no finished SAE{_hint(folder)}")
    config, tensors = files.settings(folder), load_file(folder / files.WEIGHTS)
    _require_architecture(config["arch"]["_target_"], folder)
    point = hook_point(config["model"], config["site"]["name"], config["layer"])
    d_in, d_out = len(tensors["W_enc"]), tensors["W_dec"].shape[1]
    sae = as_loaded(build(config, d_in, None if point.target is None else d_out), kind)
    sae.load_exported_(tensors)
    sae.parts = files.parts(folder)
    found = checkpoints.read(folder / files.STATISTICS)
    sae.config, sae.metrics, sae.folder = config, files.numbers(folder), folder
    sae.point = point
    sae.statistics = Statistics.restored(found.tensors, found.state)
    return sae.to(device).eval().requires_grad_(False)


def _require_architecture(target: str, folder: Path) -> None:
    """Raises UsageError for a name in the settings that may be anything else: it would be called."""
    found = locate(target, f"{folder / files.RESOLVED}: arch._target_")
    if not (isinstance(found, type) and issubclass(found, SparseAutoencoder)):
        raise UsageError(f"{folder / files.RESOLVED}: arch._target_={target}: is no architecture of SAEs")


def _hint(folder: Path) -> str:
    below = sorted(file.parent for file in folder.glob("**/" + files.NUMBERS))
    return f"; there are {len(below)} below it, such as {below[0]}" if below else ": give a job's folder"
