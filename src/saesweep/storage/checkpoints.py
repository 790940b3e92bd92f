"""Checkpoints: one file per SAE, so that any part of a group can resume.

    <job>/checkpoint/<step>-<crc32>.safetensors

holds the tensors of the SAE, its optimizer, its controller and its hook point's statistics; its header holds, as JSON, the
position in the stream, what determined its activations, and the sums since the last row of metrics.csv. The name contains
the checksum of the file: a damaged checkpoint is detected, and the previous one, which is kept, is used.
"""
from __future__ import annotations

import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saesweep.runtime import atomic
from saesweep.storage import files

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FOLDER, KEPT, TOGETHER = "checkpoint", 2, "together.txt"
ORIGIN = "determined_by.json"  # in the job's folder: what determined its activations (training/origin.py)


class Checkpoint(NamedTuple):
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Cohort(NamedTuple):
    """SAEs that resume together: their checkpoints are of the same step, or there are none (0)."""

    step: int
    members: list[int]
    saves: list[Path | None]  # for `read`


def write(job: Path, step: int, save: Checkpoint) -> None:
    """Write a checkpoint whole or not at all; keep this and the previous one."""
    folder = job / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(draft := folder / ".draft", save)
    draft.replace(folder / f"{step}-{_crc(draft):08x}.safetensors")
    for file in _files(job)[KEPT:]:
        file.unlink()


def write_tensors(file: Path, save: Checkpoint) -> None:
    from safetensors.torch import save_file  # imports torch

    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in save.tensors.items()}
    save_file(tensors, file, metadata={"state": json.dumps(save.state)})
    atomic.share(file)


def read(file: Path) -> Checkpoint:
    import safetensors

    with safetensors.safe_open(file, "pt") as content:
        metadata: Mapping[str, str] = content.metadata()
        return Checkpoint({key: content.get_tensor(key) for key in content.keys()}, json.loads(metadata["state"]))  # noqa: SIM118


def states(job: Path) -> Iterator[Mapping[str, Any]]:
    """The header of each checkpoint, newest first; damaged ones are reported by `cohorts`."""
    import safetensors

    for file in _files(job):
        with suppress(safetensors.SafetensorError), safetensors.safe_open(file, "np") as content:
            yield json.loads(content.metadata()["state"])


def write_origin(job: Path, determined_by: Mapping[str, Any]) -> None:
    """Called when a training starts or resumes."""
    atomic.write(job / ORIGIN, json.dumps(determined_by, indent=1, default=str))


def origin(job: Path) -> dict[str, Any]:
    """What determined the activations of an SAE. Raises OSError or ValueError if the file is missing or unreadable."""
    return json.loads((job / ORIGIN).read_text())


def origins(job: Path) -> list[Mapping[str, Any]]:
    """What determined the activations of the checkpoints and of a finished SAE; empty where it was not recorded."""
    found = [state["determined_by"] for state in states(job) if state.get("determined_by")]
    if (job / files.NUMBERS).is_file() and (job / ORIGIN).is_file():
        try:
            found.append(origin(job))
        except ValueError:
            log.warning("%s is unreadable: cannot tell whether its text and weights have changed", job / ORIGIN)
    return found


def cohorts(jobs: Sequence[Path]) -> list[Cohort]:
    """The SAEs grouped by the step at which they resume: the last step that most of them share, then the same for the rest.

    A kill while a group is saved leaves some SAEs one checkpoint behind: all resume from the previous one.
    """
    saves = [{_step(file): file for file in reversed(_files(job)) if _is_whole(file)} for job in jobs]
    left, found = set(range(len(jobs))), []
    while left:
        counts = Counter(step for i in left for step in saves[i] or [0])
        step = max(counts, key=lambda step: (counts[step], step))
        members = sorted(i for i in left if step in (saves[i] or [0]))
        found.append(Cohort(step, members, [saves[i][step] if step else None for i in members]))
        left -= set(members)
    return found


def halve_group_size(jobs: Sequence[Path]) -> int:
    """Half the group size after running out of memory; recorded, so that the next launch plans with it."""
    most = (len(jobs) + 1) // 2
    log.warning("out of memory with %d SAEs: continuing with %d at a time", len(jobs), most)
    for job in jobs:
        atomic.write(job / FOLDER / TOGETHER, str(most))
    return most


def max_group_size(job: Path) -> int | None:
    """The largest group in which the SAE fits into memory, itself counted; None if no limit is known."""
    file = job / FOLDER / TOGETHER
    return int(file.read_text()) if file.is_file() else None


def remove(job: Path) -> None:
    """Remove the checkpoints of a job that has ended or starts anew."""
    folder = job / FOLDER
    for file in [*_files(job), folder / ".draft", folder / TOGETHER]:
        file.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def has_checkpoint(job: Path) -> bool:
    return bool(_files(job))


def _files(job: Path) -> list[Path]:
    """Newest first."""
    named = [file for file in (job / FOLDER).glob("*.safetensors") if re.fullmatch(r"\d+-[0-9a-f]{8}", file.stem)]
    return sorted(named, key=_step, reverse=True)


def _step(file: Path) -> int:
    return int(file.stem.split("-")[0])


def _crc(file: Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while part := content.read(1 << 24):
            crc = zlib.crc32(part, crc)
    return crc


def _is_whole(file: Path) -> bool:
    if f"{_crc(file):08x}" == file.stem.split("-")[1]:
        return True
    log.warning("%s is damaged and is not used", file)
    return False
