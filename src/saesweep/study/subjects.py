"""Whose activations are collected: the finished SAEs of a sweep, and the controls that they are compared with."""
from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from saesweep.config.settings import Settings, has_lm, loaded_with, not_for_a_study, target
from saesweep.data.normalisation import Statistics
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, hook_point
from saesweep.runtime.digests import sha256
from saesweep.storage import checkpoints, files, sweep_table

FOLDER, HITS = "study", "hits.safetensors"
CONTROL = "control"  # below <sweep>/study
T = TypeVar("T")
log = logging.getLogger(__name__)


class Transcoder(UsageError):
    """The folder holds a transcoder."""


@dataclass(frozen=True)
class Subject:
    """An SAE, or a control like it; its weights are not loaded."""

    sweep: Path
    job: Path  # the SAE's folder; of a control, that of the SAE it is like
    control: str | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    point: HookPoint
    statistics: Statistics
    d_sae: int
    weights: str  # SHA-256 of the SAE's file; of a control, of what determines it
    file: Path  # where its activations go
    variant: str = ""  # what else tells it from the SAEs of its architecture; of a control, of the SAE that it is like

    @property
    def path(self) -> str:
        return self.job.relative_to(self.sweep).as_posix()

    @property
    def label(self) -> str:
        return f"{self.path} ({self.control})" if self.control else self.path

    @property
    def number(self) -> int:
        """63 bits by which its latents are drawn."""
        return int(self.weights[:16], 16) >> 1

    @property
    def l0(self) -> int:
        """The target L0; of a fixed coefficient, the measured one."""
        return target(self.config) or max(1, round(self.metrics["l0"]))


def of_sweep(sweep: Path, controls: Sequence[str], seed: int) -> list[Subject]:
    """The finished SAEs of a sweep and their controls. Raises UsageError where there are none."""
    if not sweep.is_dir():
        raise UsageError(f"{sweep} is not a folder: give the folder of a sweep, such as outputs/default")
    sweep = sweep.resolve()
    found = finished(sweep, controls, seed)
    if not found and (transcoders := _read(sweep)[1]):
        raise transcoders[0]
    if not found:
        below = sorted(sweep.glob(f"**/{files.NUMBERS}"))
        hint = f"; there are {len(below)} below it, in sweeps such as {below[0].parents[4]}" if below else ""
        raise UsageError(f"{sweep} holds no finished SAE: give the folder of a sweep, such as outputs/default{hint}")
    return found


def of_sweeps(sweeps: Iterable[Path], settings: Mapping[str, Any]) -> list[Subject]:
    """Those of each sweep once. settings: of a study."""
    each = {sweep.resolve(): sweep for sweep in sweeps}  # a mistake names the folder as it was typed
    return [one for sweep in each.values() for one in of_sweep(sweep, settings["controls"], settings["seed"])]


def finished(sweep: Path, controls: Sequence[str], seed: int) -> list[Subject]:
    """As `of_sweep`, and none where there are none. sweep: resolved. Raises UsageError for SAEs that no study can read."""
    saes, transcoders = _read(sweep)
    if saes and transcoders:
        log.warning("%s: %d transcoders are left out, which study and ablate do not read", sweep, len(transcoders))
    _require_text(saes)
    return [*saes, *_controls(saes, controls, seed)]


def _read(sweep: Path) -> tuple[list[Subject], list[Transcoder]]:
    """The finished SAEs of a sweep, and of each transcoder why it is none of them."""
    saes, transcoders = list[Subject](), list[Transcoder]()
    for job, variant in sweep_table.variants_of(sweep).items():
        if files.state(job) == "finished":
            try:
                saes.append(of_job(sweep, job, variant))
            except Transcoder as error:
                transcoders.append(error)
    return saes, transcoders


def sweep_of(job: Path) -> Path:
    """The folder of the sweep that an SAE's folder is in: <sweep>/<model>/<hook point>/<architecture>/<target L0>."""
    return job.parents[min(3, len(job.parents) - 1)]


def of_folder(job: Path) -> Subject:
    """A finished SAE by its folder; of the others of its sweep, where it is in one, the settings are read.

    Raises UsageError as `of_job`.
    """
    found = of_job(sweep_of(job), job, "")
    _require_text([found])
    place = found.config["model"]["name"], f"{found.config['site']['name']}.{found.config['layer']}"
    if job.parts[-4:-2] != place:
        return found
    return replace(found, variant=sweep_table.variants_of(found.sweep).get(job, ""))


def of_job(sweep: Path, job: Path, variant: str) -> Subject:
    """A finished SAE. Raises UsageError where its files cannot be read."""
    config, metrics = files.settings(job), dict[str, Any](files.numbers(job))
    point = hook_point(config["model"], config["site"]["name"], config["layer"])
    if point.target is not None:
        raise Transcoder(f"{job}: is a transcoder, which study, ablate and evaluate do not read; give SAEs of other sites")
    try:
        saved, weights = checkpoints.read(job / files.STATISTICS), sha256(job / files.WEIGHTS)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{error.filename or job}: cannot be read ({reason}); train this SAE again") from error
    return Subject(
        sweep, job, None, config, metrics, point, Statistics.restored(saved.tensors, saved.state), int(metrics["d_sae"]),
        weights, job / FOLDER / HITS, variant,
    )


def _require_text(saes: Iterable[Subject]) -> None:
    for sae in saes:
        if reason := not_for_a_study(sae.config):
            raise UsageError(f"{sae.job}: was trained on {reason}, which a study cannot read; give SAEs of plain text")


def _controls(saes: Sequence[Subject], names: Sequence[str], seed: int) -> list[Subject]:
    """One for each file, like the first SAE there."""
    found: dict[Path, Subject] = {}
    places = places_of_controls([(Path(sae.path).parents[1], sae.config) for sae in saes])
    for sae, below in zip(saes, places, strict=True):
        d_in = len(sae.statistics.mean)
        for name in names:
            d_sae = {"random": sae.d_sae, "residual": d_in, "pca": 2 * d_in}[name]
            place = sae.sweep / FOLDER / CONTROL / below
            file = folder_of_control(name, place, sae.l0, d_sae) / HITS
            model = {key: sae.config["model"][key] for key in ("name", "source")} | loaded_with(sae.config["model"])
            what = [name, seed, model, str(sae.point), sae.l0, d_sae, sae.statistics.scale]
            weights = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
            found.setdefault(file, Subject(
                sae.sweep, sae.job, name, sae.config, sae.metrics, sae.point, sae.statistics, d_sae, weights, file,
                sae.variant))
    return list(found.values())


def places_of_controls(saes: Sequence[tuple[Path, Settings]]) -> list[Path]:
    """The folder of the controls of each SAE, of its hook point's folder and its settings: that of the hook point, and below
    it one for each text where SAEs there read several."""
    read = [(place, json.dumps(reads(config), sort_keys=True, default=str)) for place, config in saes]
    several = Counter(place for place, _ in {*read})
    return [place / hashlib.sha256(what.encode()).hexdigest()[:8] if several[place] > 1 else place for place, what in read]


def folder_of_control(name: str, place: Path, l0: object, d_sae: int) -> Path:
    """One of each kind for each hook point and target L0; `random` also for each width. place: of the hook point."""
    return place / str(l0) / (f"random.{d_sae}" if name == "random" else name)


def groups(saes: Iterable[T], config: Callable[[T], Settings]) -> list[list[T]]:
    """Those that share a pass: of one language model, text and context, or of one known dictionary."""
    by_key: dict[str, list[T]] = {}
    for one in saes:
        by_key.setdefault(json.dumps(reads(config(one)), sort_keys=True, default=str), []).append(one)
    return list(by_key.values())


def reads(config: Settings) -> dict[str, Any]:
    """What determines the tokens that a study reads, and their activations."""
    if not has_lm(config):
        return {"source": config["model"]["source"]}
    model = {key: config["model"][key] for key in ("name", "source", "bos", "dtype")} | loaded_with(config["model"])
    return {"model": model, **{key: config[key] for key in ("text", "context", "stream_seed")}}
