"""The SAE of a sweep at whose hook point, and on whose held-out tokens, others are measured."""
from __future__ import annotations

import json
from pathlib import Path

from saesweep.config.settings import has_lm, imported, own_activations
from saesweep.errors import UsageError
from saesweep.storage import files
from saesweep.study import subjects
from saesweep.study.subjects import Subject


def of_folder(folder: Path) -> Subject:
    """folder: of an SAE, or of a hook point. Raises UsageError where there is no finished SAE that was trained here, or where
    those of the hook point read different text."""
    folder = folder.resolve()
    below = sorted(file.parent for file in folder.glob(f"*/*/{files.NUMBERS}"))
    configs = {job: files.settings(job) for job in ([folder] if (folder / files.NUMBERS).is_file() else below)}
    own = {job: config for job, config in configs.items() if config and imported(config) is None}
    if not own:
        raise UsageError(f"--like {folder}: holds no finished SAE that was trained here; give the folder of a hook point, such "
                         "as outputs/default/gemma3_270m/resid.9, or of an SAE in it")
    job, config = next(iter(own.items()))
    if not has_lm(config):
        what = "brings its activations" if own_activations(config) else "is a known dictionary"
        raise UsageError(f"--like {folder}: model={config['model']['name']} {what}; give a hook point of a "
                         "language model")
    read = {json.dumps([subjects.reads(one), one["evaluation"]], sort_keys=True, default=str) for one in own.values()}
    if len(read) > 1:
        raise UsageError(f"--like {folder}: its SAEs were measured on {len(read)} different texts; give one of them")
    return subjects.of_job(subjects.sweep_of(job), job, "")
