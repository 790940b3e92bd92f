"""What `saesweep evaluate` does: read all SAEs, measure them on the same passes of the language model, and write each."""
from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.imported import ImportedThreshold, ImportedTopK
from saesweep.config.check import check_name
from saesweep.config.settings import device_of
from saesweep.data.resources import Resources
from saesweep.errors import UsageError, reason
from saesweep.evaluation.subject import Measured
from saesweep.evaluation.subject import Subject as Evaluated
from saesweep.imported import fold, like, names, results
from saesweep.imported.fold import Original
from saesweep.imported.readers import READERS
from saesweep.imported.source import locate
from saesweep.runtime import program
from saesweep.study import passes
from saesweep.study.subjects import Subject
from saesweep.sweep.inputs import inputs_of
from saesweep.training.origin import determined_by


@dataclass(frozen=True)
class Options:
    like: Path
    out: Path | None = None  # None: the sweep of `like`
    name: str | None = None  # of the curve
    tokens: int | None = None  # of the training
    scale: float | None = None  # that activations were multiplied by, where the files do not say
    any_name: bool = False
    overwrite: bool = False
    device: str = "auto"

    def command(self, typed: str) -> str:
        """That measures this SAE alone."""
        words = [typed, "--like", str(self.like)]
        for key in ("out", "name", "tokens", "scale"):
            if (value := getattr(self, key)) is not None:
                words += [f"--{key}", str(value)]
        return f"{program.called('evaluate')} {shlex.join([*words, *['--any-name'] * self.any_name])}"


class Read(NamedTuple):
    at: results.Place
    sae: SparseAutoencoder


class Ended(NamedTuple):
    """metrics: None where they were there before, or the SAE could not be measured, which `problem` says."""

    folder: Path
    metrics: dict[str, float | None] | None
    problem: str | None = None


def run(sources: Sequence[str], options: Options, resources: Resources | None = None) -> list[Ended]:
    """Everything that a user can get wrong about the files is found before the language model is loaded. Raises UsageError."""
    resources, here = resources or Resources(), like.of_folder(options.like)
    job = {**passes.on_device(here.config, options.device), "cache": {"name": "none", "folder": None}}
    read = {one.at.folder: one for one in (_read(typed, options, here) for typed in sources)}
    new = [one for one in read.values() if not results.is_there(one.at, options.overwrite)]
    ended = {folder: Ended(folder, None) for folder in read}
    if new:
        passes.require_same(job, [here], resources)
        subjects = [Evaluated(one.sae.to(device_of(job)), here.point, here.statistics) for one in new]
        found = inputs_of(job, [here.point], resources).evaluate(subjects)
        origin = determined_by(job, resources)
        for one, measured in zip(new, found, strict=True):
            if isinstance(measured, Measured):
                results.write(one.at, here, one.sae, measured, origin)
                ended[one.at.folder] = Ended(one.at.folder, measured.numbers)
            else:
                ended[one.at.folder] = Ended(one.at.folder, None, reason(measured))
    return list(ended.values())


def _read(typed: str, options: Options, here: Subject) -> Read:
    source = locate(typed, list(READERS))
    pattern = next(name for name in READERS if Path(source.weights).match(name))
    about, original = READERS[pattern](source, options.scale)
    names.require_same(about, typed, here.config, here.point, options.any_name)
    fold.require_shapes(original, typed)
    if (d_in := original.W_enc_T.shape[1]) != (wanted := len(here.statistics.mean)):
        raise UsageError(f"{typed}: it reads {d_in} values per token, and {here.point} of {here.config['model']['name']} has "
                         f"{wanted}; give --like a hook point of that width")
    check_name("--name", curve := options.name or about.curve)
    out = (options.out or here.sweep).resolve()
    results.require_own_curve(out, curve)
    sae = _built(original)
    return Read(results.place(out, here, source, about, sae, curve, options.tokens, options.command(typed)), sae)


def _built(original: Original) -> SparseAutoencoder:
    d_sae, d_in = original.W_enc_T.shape
    if original.k is None:
        sae: SparseAutoencoder = ImportedThreshold(d_in, d_sae, 0, imported={})
    else:
        sae = ImportedTopK(d_in, d_sae, original.k, imported={})
    sae.load_exported_(fold.folded(original))
    return sae.eval().requires_grad_(False)
