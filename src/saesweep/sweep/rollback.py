"""Undo what Hydra writes before the jobs are checked, after a plan or a refusal."""
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from saesweep.runtime import atomic

_files: dict[Path, bytes | None] = {}  # the content before; None if there was no file
_folders: list[Path] = []  # that did not exist, the innermost first


def hydra_files(hydra: DictConfig) -> list[str]:
    """The files that Hydra writes in a job's folder."""
    config = [f"{hydra.output_subdir}/{name}.yaml" for name in ("config", "hydra", "overrides")]
    return [*(config if hydra.output_subdir else []), f"{hydra.job.name}.log"]


def remember(folder: Path, names: Sequence[str]) -> None:
    """Call before Hydra creates the folder and these files in it."""
    for file in (folder / name for name in names):
        if file.suffix != ".log" or not file.exists():  # Hydra appends to a log that exists
            _files[file] = file.read_bytes() if file.is_file() else None
        missing = [parent for parent in file.parents if not parent.exists()]
        _folders.extend(parent for parent in missing if parent not in _folders)


def remember_new(folder: Path, names: Sequence[str]) -> None:
    """Call for files in a folder that Hydra has created since, inside one that was not there."""
    top = next((made for made in _folders if folder.is_relative_to(made)), None)
    if top is None:
        return
    for file in [folder / name for name in names]:
        _files[file] = None
        _folders.extend(parent for parent in file.parents if parent.is_relative_to(top) and parent not in _folders)


def commit() -> None:
    """Keep what Hydra has written: the training begins."""
    _files.clear()
    _folders.clear()


def roll_back() -> None:
    """Restore the files and remove the folders that were created and are empty."""
    for file, content in _files.items():
        if content is None:
            file.unlink(missing_ok=True)
        elif not file.is_file() or file.read_bytes() != content:
            atomic.write(file, content)
    for folder in sorted(_folders, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):
            folder.rmdir()
    commit()
