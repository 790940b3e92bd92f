"""What `saesweep study` does with its sweeps: one stage after the other, each of which keeps what is whole.

    collect     the activations of every SAE and control (collect.py)
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.data.resources import Resources
from saesweep.study.collect import collect

Stage = Callable[[Sequence[Path], Mapping[str, Any], Resources], dict[str, Exception]]
STAGES: tuple[Stage, ...] = (collect,)  # scores, report and pages come after it


def run(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources | None = None) -> dict[str, Exception]:
    """All stages. Returns what failed, by SAE. Raises UsageError for a user's mistake, before a weight is loaded."""
    resources, failed = resources or Resources(), dict[str, Exception]()
    for stage in STAGES:
        failed |= stage(sweeps, settings, resources)
    return failed
