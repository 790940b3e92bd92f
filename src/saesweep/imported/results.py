"""The folder of an imported SAE: that of any other SAE (storage/files.py), without a training curve.

Its settings are those that determine what is measured; `arch.imported` says where it comes from.
"""
from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import Settings, imported
from saesweep.errors import UsageError, as_typed
from saesweep.evaluation.subject import Measured
from saesweep.imported.about import About
from saesweep.imported.source import Source
from saesweep.old_names import renewed
from saesweep.runtime import atomic
from saesweep.runtime.digests import sha256
from saesweep.storage import checkpoints, files, sae_format, sweep_table
from saesweep.storage.checkpoints import Checkpoint
from saesweep.study.subjects import Subject

KEPT = ("name", "model", "site", "layer", "text", "context", "stream_seed", "activations", "evaluation", "trainer", "dense")
OF_RESULTS = ("sparsity", "arch.imported.command")  # that may differ between two measurements of one SAE


class Place(NamedTuple):
    folder: Path
    settings: dict[str, Any]


def place(
    out: Path, like: Subject, source: Source, about: About, sae: SparseAutoencoder, curve: str, tokens: int | None, command: str
) -> Place:
    """Where an SAE goes, with what settings; `sparsity` is its k, or 0 until its L0 is known."""
    job = like.config
    said = {
        "source": source.place, "format": about.format, "trained_by": source.repository or about.format,
        "tokens": tokens or about.tokens, "commit": source.commit, "sha256": sha256(source.folder / source.weights),
        "command": command,
    }
    arch = {"name": curve, "_target_": f"{type(sae).__module__}.{type(sae).__name__}", "coefficient": None, "control": None,
            "imported": said}
    settings = {key: job[key] for key in KEPT if key in job}
    settings |= {"arch": arch, "width": sae.d_sae, "sparsity": 0 if sae.thresholded else sae.sparsity, "seed": 0}
    at = out / job["model"]["name"] / f"{job['site']['name']}.{job['layer']}" / curve / slug(source)
    return Place(at, settings)


def slug(source: Source) -> str:
    """The name of its folder: the ends of its path, and 8 digits that no other path has."""
    parts = [part for part in Path(source.place).parent.parts if part not in ("/", "sae", "checkpoints")]
    name = re.sub(r"[^\w.+-]+", "-", "-".join(parts[-2:]) or source.weights).strip("-.")
    return f"{name}-{hashlib.sha256(source.place.encode()).hexdigest()[:8]}"


def is_there(at: Place, overwrite: bool) -> bool:
    """Whether it was measured before, with the same settings. Raises UsageError for others, unless they are overwritten."""
    if not (at.folder / files.NUMBERS).is_file():
        return False
    then = files.settings(at.folder)
    if imported(then) is None:
        raise UsageError(f"{at.folder}: holds an SAE that was trained here; give another --name")
    differing = _differences(then, at.settings)
    if differing and not overwrite:
        head = f"{at.folder} was measured with other settings or files; write --overwrite to replace it:"
        raise UsageError("\n  ".join([head, *differing]))
    return not differing and not overwrite


def _differences(then: Settings, now: Settings) -> list[str]:
    a, b = ({key: value for key, value in files.flat(renewed(dict(one))) if key not in OF_RESULTS} for one in (then, now))
    return [f"{key}: {as_typed(a.get(key, 'absent'))} there, {as_typed(b.get(key, 'absent'))} here"
            for key in dict.fromkeys([*b, *a]) if a.get(key) != b.get(key)]


def write(at: Place, like: Subject, sae: SparseAutoencoder, measured: Measured, determined_by: Mapping[str, Any]) -> None:
    """The metrics come last: they mark it as finished. Of its training neither the dead latents nor a coefficient are known."""
    if at.folder.exists():
        shutil.rmtree(at.folder)  # also what a study has kept of an SAE that is replaced
    tokens = at.settings["arch"]["imported"]["tokens"]
    numbers = {**measured.numbers, "dead": None, "coefficient": None, "d_in": sae.d_in, "d_sae": sae.d_sae, "tokens": tokens,
               "unique_tokens": None}
    sparsity = at.settings["sparsity"] or max(1, round(numbers["l0"] or 0))
    settings = OmegaConf.create(at.settings | {"sparsity": sparsity})
    atomic.write(at.folder / files.RESOLVED, OmegaConf.to_yaml(settings))
    sae_format.save(at.folder / "sae", sae, at.settings, measured.numbers | {"dead": None})
    checkpoints.write_tensors(at.folder / files.STATISTICS, Checkpoint(*like.statistics.saved()))
    checkpoints.write_origin(at.folder, determined_by)
    sweep_table.write(at.folder, documents=measured.documents, frequency=measured.frequency, numbers=numbers)


def require_own_curve(out: Path, curve: str) -> None:
    """Raises UsageError where SAEs that were trained here have the name of the curve."""
    taken = [job for job in sweep_table.jobs(out) if job.parent.name.split(",")[0] == curve]
    if any(imported(files.settings(job)) is None for job in taken):
        raise UsageError(f"--name {curve}: is an architecture of {out}; give another name")
