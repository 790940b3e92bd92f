"""The folder of an SAE: on this machine, or in a repository of the Hugging Face hub, of which its own files are downloaded."""
import logging
from pathlib import Path, PurePosixPath

from saesweep.errors import UsageError
from saesweep.lm import hub
from saesweep.lm.hub import Place, brief
from saesweep.storage import checkpoints, files

log = logging.getLogger(__name__)
NEEDED = (files.NUMBERS, files.RESOLVED, files.STATISTICS, files.WEIGHTS)  # to load it
FILES = (  # what is uploaded
    *NEEDED, files.CFG, files.OVERRIDES, files.DOCUMENTS, files.FREQUENCY, files.CURVE, checkpoints.ORIGIN,
)


def folder_of(typed: str | Path) -> Path:
    """typed: a folder, or, where there is none, owner/name/folder[@revision] of the hub; there need not be an SAE in it.

    Raises UsageError where the hub has no such folder, or no answer.
    """
    named = typed.as_posix() if isinstance(typed, Path) else typed
    if Path(typed).exists() or (at := hub.place(named)) is None:
        return Path(typed)
    at = at._replace(path=at.path.removesuffix("/sae"))
    patterns = [f"{at.path}/{name}".lstrip("/") for name in FILES]

    def read(root: Path) -> Path:
        if lacking := [name for name in NEEDED if not (root / at.path / name).is_file()]:
            raise FileNotFoundError(f"{at.path} has no {', '.join(lacking)}")
        return root / at.path

    try:
        found = hub.files_at(named, at, patterns, read, "give a folder of this machine")
    except FileNotFoundError as error:
        there = f"{at.repository} holds no finished SAE there, at revision {at.revision}{_hint(at)}"
        raise UsageError(f"{named}: {there}") from error
    _require_values(found / files.RESOLVED, named)
    return found


def _require_values(file: Path, typed: str) -> None:
    """Raises UsageError where settings that others have written would read the environment here, or call anything."""
    asks = "${" in file.read_text(errors="replace")
    keys = [] if asks else [key for key, _ in files.flat(files.settings(file.parents[1]))]
    if asks or any(key.endswith("_target_") and key != "arch._target_" for key in keys):
        raise UsageError(f"{typed}: its {files.RESOLVED} holds ${{...}}, or a _target_ beside that of its architecture, and is "
                         "not read from the hub; download it, and read it before you load it by its folder")


def _hint(at: Place) -> str:
    """Which SAEs the repository has: below the path, else at all."""
    from huggingface_hub import HfApi

    try:
        listed = map(PurePosixPath, HfApi().list_repo_files(at.repository, revision=at.revision))
    except Exception as error:
        log.info("the files of %s cannot be listed (%s)", at.repository, brief(error))
        return ""
    there = sorted(file.parent for file in listed if file.name == files.NUMBERS)
    below = [folder for folder in there if folder.is_relative_to(at.path)]
    found = below or there
    return f"; there are {len(found)} {'below it' if below else 'in it'}, such as {at.repository}/{found[0]}" if found else ""
