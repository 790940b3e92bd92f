"""A finished study, read back from its folders."""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.storage import study_tables
from saesweep.study.collect import collected
from saesweep.study.pages.gather import Completion, gather
from saesweep.study.pages.of_sae import OfSAE


def finished(folder: Path, *, logits: bool) -> list[OfSAE]:
    """Its SAEs with their scored latents. folder: of a sweep, or of the report of several.

    Raises UsageError where nothing was scored.
    """
    base, file = folder.resolve(), folder / study_tables.FOLDER / study_tables.SCORES
    if not file.is_file():
        raise UsageError(f"{folder}: its SAEs are not scored yet; run saesweep study {folder}")
    scores = study_tables.read(file)
    jobs = [Path(os.path.normpath(base / path)) for path in dict.fromkeys(scores["path"])]
    found = [one for sweep in dict.fromkeys(job.parents[3] for job in jobs) for one in collected(sweep)]
    named = [replace(one, path=Path(os.path.relpath(one.folder, base)).as_posix()) for one in found]
    resources = Resources()
    return list(map(Completion(resources, logits=logits), gather(named, scores, resources)))
