"""What `saesweep study` does with its sweeps: one stage after the other, each of which keeps what is whole.

    collect     the activations of every SAE and control (collect.py)
    score       scores that need no judge, and the comparison of the architectures (scoring.py)
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saesweep.data.resources import Resources
from saesweep.runtime import distributed
from saesweep.study.collect import collect
from saesweep.study.comparison.sentences import lines
from saesweep.study.judging import planned
from saesweep.study.scoring import base_of, run_scores
from saesweep.study.subjects import of_sweep


class Result(NamedTuple):
    failed: dict[str, Exception]  # by SAE
    lines: list[str]  # the comparison in words


def run(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources | None = None) -> Result:
    """All stages. Raises UsageError for a user's mistake, before a weight is loaded."""
    resources, _ = resources or Resources(), base_of(sweeps, settings["out"])
    planned(sum(len(of_sweep(sweep, settings["controls"], settings["seed"])) for sweep in sweeps), settings)
    failed = collect(sweeps, settings, resources)
    if distributed.rank() != 0:
        return Result(failed, [])
    return Result(failed, lines(run_scores(sweeps, settings, resources).comparison))
