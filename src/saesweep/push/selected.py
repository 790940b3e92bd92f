"""Which SAEs are uploaded, and to where in the repository: the finished ones of the folders that were trained here."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from saesweep.config.settings import imported
from saesweep.errors import UsageError
from saesweep.push.private import Public, public
from saesweep.storage import files, variants
from saesweep.study.subjects import sweep_of

LEVELS = 4  # of folders between a sweep and an SAE


class Chosen(NamedTuple):
    job: Path  # its folder
    place: Path  # in the repository: model/site.layer/architecture/target
    public: Public


class Selection(NamedTuple):
    saes: list[Chosen]
    left_out: dict[str, int]  # how many, by the reason


def choose(folders: Sequence[Path]) -> Selection:
    """folders: of sweeps, of SAEs, or between them. Raises UsageError where one has no SAE, or two SAEs have one place."""
    saes, left_out = dict[Path, Chosen](), dict[str, int]()
    for job in dict.fromkeys(job for folder in folders for job in _jobs(folder)):
        if (why := _unfit(job)) is not None:
            left_out[why] = left_out.get(why, 0) + 1
            continue
        one = _chosen(job, public(files.settings(job)))
        if one.place in saes:
            raise UsageError(f"{job} and {saes[one.place].job} would both be {one.place} of the repository: give one of them")
        saes[one.place] = one
    if not saes:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
        raise UsageError(f"{' '.join(map(str, folders))}: no SAE can be uploaded ({reasons}); give a sweep with finished ones")
    return Selection(list(saes.values()), left_out)


def _jobs(folder: Path) -> list[Path]:
    """The folders of its SAEs, finished or not; itself, if it is one."""
    for below in range(LEVELS + 1):
        if found := sorted(file.parent.resolve() for file in folder.glob("*/" * below + ".hydra")):
            return found
    raise UsageError(f"{folder}: holds no SAE; give the folder of a sweep, such as outputs/default, or of an SAE in it")


def _unfit(job: Path) -> str | None:
    if (state := files.state(job)) != "finished":
        return state
    return "trained by others" if imported(files.settings(job)) is not None else None


def _chosen(job: Path, found: Public) -> Chosen:
    """The folder's name may hold the value of a key that is rewritten."""
    place = job.relative_to(sweep_of(job)).as_posix()
    for old, new in found.rewritten.values():
        place = place.replace(variants.shown(old), variants.shown(new))
    return Chosen(job, Path(place), found)
