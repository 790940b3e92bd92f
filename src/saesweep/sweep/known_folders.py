"""Each SAE once in a sweep: in the folder that it has there already, and as one job of a command."""
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from saesweep.config.settings import own_settings
from saesweep.errors import UsageError
from saesweep.storage import files
from saesweep.sweep.jobs import Job


def in_its_folder(job: Job) -> Job:
    """The job in the folder that the sweep has for this SAE already, where a command with other swept keys has named it."""
    with suppress(UsageError, OSError):  # a mistake is refused later, with the others
        settings = own_settings(job.settings)
        arch = job.settings["arch"]["name"]
        others = [job.folder, *sorted(job.folder.parents[1].glob(f"{arch},*/{job.folder.name}")),
                  job.folder.parents[1] / arch / job.folder.name]
        twin = next((folder for folder in others if _settings(folder) == settings), job.folder)
        if twin != job.folder:
            _move(job.composed, twin, job.sweep)
            return Job(job.composed, twin, job.sweep)
    return job


def _settings(folder: Path) -> dict[str, Any] | None:
    """Those that determine the SAE in a folder."""
    file = files.settings_file(folder)
    return _read(folder, file.stat().st_mtime_ns) if file.is_file() else None


@cache
def _read(folder: Path, _mtime: int) -> dict[str, Any]:
    """Cached until the file changes: each new job of a sweep, and each batch of a search, looks at all folders."""
    return own_settings(files.settings(folder))


def _move(composed: DictConfig, folder: Path, sweep: Path) -> None:
    """Hydra's own files go to the folder too."""
    with read_write(composed.hydra):
        composed.hydra.run.dir, composed.hydra.sweep.subdir = str(folder), str(folder.relative_to(sweep))


def without_repeated(jobs: Sequence[Job], overrides: Sequence[Sequence[str]]) -> list[Job]:
    """Each SAE once: an override of one architecture that is swept gives jobs of the others several times."""
    kept: list[Job] = []
    for job, words in zip(jobs, overrides, strict=True):
        own: Any = OmegaConf.to_container(job.composed.hydra.overrides.task)
        same = (one for one in kept if one.folder == job.folder and one.settings == job.settings)
        if list(words) == own or next(same, None) is None:
            kept.append(job)
    return kept
