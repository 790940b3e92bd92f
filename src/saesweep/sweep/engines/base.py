"""Where the groups of a sweep run: `hydra/launcher=grouped` and `pool` (local.py), `slurm`, `ray`.

    with engine: tickets = [engine.submit(run, group) for each]; then engine.results(ticket) for each, in order

Leaving the block early, by a signal or an error, lets every running group save and exit.
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from saesweep.sweep.jobs import Job

Results = list[dict[str, Any] | Exception]
GRACE = 60.0  # seconds that ranks get to save after they are asked to stop


@runtime_checkable
class Engine(Protocol):
    is_here: bool  # on this machine, so that a probe can estimate the time

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None: ...
    def submit(self, run: str, group: Sequence[Job]) -> int: ...
    def results(self, ticket: int) -> Results: ...


def place_of(group: Sequence[Job]) -> Path:
    """The folder of a group's files, which all ranks see; the same for the same group."""
    first = group[0]
    return first.sweep / ".groups" / "-".join(first.folder.relative_to(first.sweep).parts)
