"""What a job's folder holds: the settings that produced it, and whether the SAE is finished."""
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from saesweep.config.schema import MAY_DIFFER_IN_A_FIGURE
from saesweep.config.settings import imported, own_settings, target
from saesweep.data.resources import Resources
from saesweep.errors import HOW_TO_REPLACE, UsageError, as_typed
from saesweep.runtime import atomic
from saesweep.storage import checkpoints, files, variants
from saesweep.storage.files import COMPOSED, FAILED, NUMBERS, RESOLVED
from saesweep.sweep.jobs import Job, groups, shown

log = logging.getLogger(__name__)

RESULTS = (NUMBERS, "sae")
OURS = (*RESULTS, checkpoints.FOLDER, checkpoints.ORIGIN, *files.FILES, "wandb", "study")  # removed when a job starts anew


def finished(job: Job) -> dict[str, Any] | None:
    """The metrics of eval.json; None if there are none, or if they are unreadable."""
    file = job.folder / NUMBERS
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError:
        log.warning(f"{shown(file)} is unreadable: this SAE is trained again")
        return None


def refuse_others(jobs: Sequence[Job]) -> None:
    """Raises UsageError if results of other settings would be replaced without overwrite=true, or share a figure."""
    replaced = [
        _made_otherwise(job.folder, differing)
        for job in jobs if not job.settings["overwrite"] and (differing := differences(job))
    ]
    if replaced:
        raise UsageError("\n".join([*replaced, HOW_TO_REPLACE]))
    if beside := _beside(jobs):
        fix = "one figure would hold both: choose another name=..., or make all of it again in one command with overwrite=true"
        raise UsageError("\n".join([*beside, fix]))


def stale(jobs: Sequence[Job], resources: Resources) -> set[Path]:
    """The folders whose checkpoints or results are from changed text or weights. Raises UsageError without overwrite=true."""
    changed: dict[Path, str] = {}
    for group in groups([job for job in jobs if checkpoints.origins(job.folder) and not differences(job)]):
        from saesweep.training import origin  # torch

        try:
            changed |= origin.changed_content(group[0].settings, [job.folder for job in group], resources)
        except UsageError as error:  # a training on them raises it again; a finished SAE needs neither
            log.warning("cannot tell whether the text and the weights of %s have changed: %s", shown(group[0].folder), error)
    refused = [changed[job.folder] for job in jobs if job.folder in changed and not job.settings["overwrite"]]
    if refused:
        raise UsageError("\n".join([*refused, f"restore them, {HOW_TO_REPLACE}"]))
    return set(changed)


def _beside(jobs: Sequence[Job]) -> list[str]:
    """Finished SAEs outside this command whose shared settings differ: one for each model and site, and each architecture."""
    own, found = {job.folder for job in jobs}, []
    fixed = [job for job in jobs if target(job.settings) is None]
    asked = {(job.folder.parents[1], "*/*"): (job, _shared) for job in jobs}
    asked |= {(job.folder.parent, "*"): (job, _of_a_curve) for job in jobs}
    asked |= {(job.folder.parent, "coefficient_*"): (job, _start) for job in fixed}
    for (folder, below), (job, settings) in asked.items():
        others = (file.parent for file in sorted(folder.glob(f"{below}/{NUMBERS}")) if file.parent not in own)
        pairs = ((other, files.settings(other)) for other in others)
        other, made = next((pair for pair in pairs if not (pair[1] and imported(pair[1]))), (None, None))
        if other and made:
            told = {*_named(other, made), *_named(job.folder, job.settings)}
            differing = _differing(*({key: value for key, value in settings(one).items() if key not in told}
                                     for one in (made, job.settings)))
            if differing:
                found.append(_made_otherwise(other, differing))
    return found


def _named(folder: Path, settings: Mapping) -> list[str]:
    """The settings that the name of the folder tells apart."""
    return variants.named_keys(variants.of_folder(folder, settings["arch"]["name"]), settings)


def _made_otherwise(folder: Path, differing: Sequence[str]) -> str:
    return f"{shown(folder)} was trained with other settings:\n  " + "\n  ".join(differing)


def _shared(settings: Mapping) -> dict[str, Any]:
    """The settings that all SAEs of a figure share."""
    return dict(files.flat({key: value for key, value in own_settings(settings).items() if key not in MAY_DIFFER_IN_A_FIGURE}))


def _of_a_curve(settings: Mapping) -> dict[str, Any]:
    """The settings that all SAEs of an architecture share: all of `arch` but the coefficient."""
    return dict(files.flat({"arch": {key: value for key, value in settings["arch"].items() if key != "coefficient"}}))


def _start(settings: Mapping) -> dict[str, Any]:
    """With a fixed coefficient `sparsity` is no target, but a warm start may use it."""
    return {"sparsity": settings["sparsity"]}


def differences(job: Job) -> list[str]:
    """One line for each setting that differs from those of the results in the job's folder."""
    if not checkpoints.has_checkpoint(job.folder) and not any((job.folder / name).exists() for name in RESULTS):
        return []
    made = files.settings(job.folder)
    if not made:
        return ["unknown: it has results, but no .hydra folder with their settings"]
    return _differing(dict(files.flat(own_settings(made))), dict(files.flat(own_settings(job.settings))))


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*here, *there]) if there.get(key, "absent") != here.get(key, "absent")]
    return [f"{key}: {as_typed(there.get(key, 'absent'))} there, {as_typed(here.get(key, 'absent'))} here" for key in keys]


def begin(group: Sequence[Job], resources: Resources) -> None:
    """Record the settings; remove the files of an earlier attempt, unless it has a checkpoint to resume from."""
    replaced = stale(group, resources)
    for job in group:
        if differences(job) or job.folder in replaced or not checkpoints.has_checkpoint(job.folder):
            _clear(job)
        (job.folder / FAILED).unlink(missing_ok=True)
        atomic.write(job.folder / RESOLVED, OmegaConf.to_yaml(OmegaConf.create(job.settings)))
        atomic.write(job.folder / files.OVERRIDES, OmegaConf.to_yaml(job.composed.hydra.overrides.task))  # Hydra's is too late


def end(job: Job, failed: str | None) -> None:
    """Write failed.txt, or remove that of an earlier attempt."""
    if failed is None:
        (job.folder / FAILED).unlink(missing_ok=True)
    else:
        files.write_failed(job.folder, failed)


def _clear(job: Job) -> None:
    for name in (*OURS, *(job.settings.get("logger") or {})):  # each logger has a folder named after it
        path = job.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if (job.sweep / "study").is_dir():
        from saesweep.storage import study_tables  # pandas

        study_tables.forget(job.sweep, job.folder.relative_to(job.sweep).as_posix())


def restore(job: Job) -> None:
    """After a late refusal, restore Hydra's file to the settings of the results."""
    if (job.folder / RESOLVED).is_file():
        shutil.copyfile(job.folder / RESOLVED, job.folder / COMPOSED)
