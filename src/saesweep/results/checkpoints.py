"""What an interrupted training goes on from: a file per SAE, so that any part of a group can go on.

    <job>/checkpoint/<step>-<crc32>.safetensors

holds the tensors of the SAE, its optimizer, its controller and its site's statistics, and in its header, as JSON, the
position in the stream, what determined its activations, and the sums since the last row of metrics.csv. The name has the
checksum of the whole file: a damaged one is noticed, and the one before, which is kept, is used.
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

from saesweep.results import files
from saesweep.runtime import atomic

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FOLDER, KEPT, TOGETHER = "checkpoint", 2, "together.txt"
ORIGIN = "determined_by.json"  # in the job's folder: the text and weights of its activations, and how they were read


class Checkpoint(NamedTuple):
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Cohort(NamedTuple):
    """SAEs that go on together: they were saved after the same number of steps, or not at all (0)."""

    step: int
    members: list[int]
    saves: list[Path | None]  # for `read`


def write(job: Path, step: int, save: Checkpoint) -> None:
    """Whole or not at all; older ones but the last are removed."""
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
    """Of each save, without its tensors; what is damaged is noticed by `cohorts`."""
    import safetensors

    for file in _files(job):
        with suppress(safetensors.SafetensorError), safetensors.safe_open(file, "np") as content:
            yield json.loads(content.metadata()["state"])


def write_origin(job: Path, determined_by: Mapping[str, Any]) -> None:
    """When a training starts or resumes."""
    job.mkdir(parents=True, exist_ok=True)
    atomic.write(job / ORIGIN, json.dumps(determined_by, indent=1, default=str))


def origin(job: Path) -> dict[str, Any]:
    """What determined the activations of an SAE; raises OSError or ValueError where that is not there to be read."""
    return json.loads((job / ORIGIN).read_text())


def origins(job: Path) -> list[Mapping[str, Any]]:
    """What determined the activations of the checkpoints, and of a finished SAE; empty where that was not written down."""
    found = [state["determined_by"] for state in states(job) if state.get("determined_by")]
    if (job / files.NUMBERS).is_file() and (job / ORIGIN).is_file():
        try:
            found.append(origin(job))
        except ValueError:
            log.warning("%s is not readable: whether its text and weights have changed is not known", job / ORIGIN)
    return found


def cohorts(jobs: Sequence[Path]) -> list[Cohort]:
    """The SAEs by the step from which they go on: the last one that most of them share, then the same for the rest.

    A kill while a group is saved leaves some of it a save behind: all go on from the one before.
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
    """They did not fit into memory together: how many at a time go on; the plan of the next launch knows."""
    most = (len(jobs) + 1) // 2
    log.warning("out of memory with %d SAEs: they go on %d at a time", len(jobs), most)
    for job in jobs:
        (job / FOLDER).mkdir(parents=True, exist_ok=True)
        (job / FOLDER / TOGETHER).write_text(str(most))
    return most


def max_group_size(job: Path) -> int | None:
    """With how many others at most it fits into memory, itself counted."""
    file = job / FOLDER / TOGETHER
    return int(file.read_text()) if file.is_file() else None


def remove(job: Path) -> None:
    """Of a job that has ended, or that starts anew."""
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
    log.warning("%s is damaged, and is not used", file)
    return False
