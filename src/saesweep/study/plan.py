"""The plan of a study as text: what would be read, kept and needed. No weight is loaded."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.config.settings import Settings, has_lm
from saesweep.data.resources import Resources
from saesweep.storage import files
from saesweep.study import subjects
from saesweep.study.accumulator import BYTES
from saesweep.study.collect import needed
from saesweep.study.collector import ELEMENTS, LISTED
from saesweep.study.hits import HALVES
from saesweep.study.judge.settings import has_model
from saesweep.study.judging import planned
from saesweep.study.passes import Pass
from saesweep.study.text import Text

GB = 1e9


def plan(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources | None = None) -> str:
    """Raises UsageError as the study itself does."""
    made = needed(sweeps, settings, resources or Resources())
    collecting = "\n\n".join(_describe(one, settings) for one in made) or "all SAEs and controls are collected"
    if not has_model(settings["explainer"]):
        return collecting
    saes = sum(len(subjects.of_sweep(sweep, settings["controls"], settings["seed"])) for sweep in sweeps)
    return "\n\n".join([collecting, *planned(saes, settings).lines()])


def _describe(one: Pass, settings: Mapping[str, Any]) -> str:
    saes = [subject for subject in one.subjects if subject.control is None]
    lines = [
        *reading(one.job, len(saes), len(one.subjects) - len(saes), len({subject.point for subject in one.subjects}), one.text,
                 settings),
        *_time(one),
        f"memory: about {_memory(one) / GB:.2f} GB beside the language model; disk: {_state(one) / GB:.2f} GB, and 12 bytes "
        "for each activation that is listed",
        *(f"  {subject.label}" + (" (replaced)" if subject in one.replaced else "") for subject in one.subjects),
    ]
    return "\n".join(lines)


def reading(
    job: Settings, saes: int, controls: int, points: int, text: Text, settings: Mapping[str, Any]
) -> list[str]:
    """What one pass reads, and for whom."""
    halves = [f"{half}: {len(text[half].documents):,} documents, {int(text[half].ordinary.sum()):,} tokens" for half in HALVES]
    lines = [f"{job['model']['name']}: one pass for {saes} SAEs and {controls} controls at {points} hook points; "
             f"{settings['features']:,} latents of each are scored", *halves]
    if not has_lm(job):
        return lines
    again = sum(min(settings["dense_tokens"], len(text[half].tokens)) for half in HALVES) * settings["dense_probes"]
    total = sum(len(text[half].tokens) for half in HALVES) + again
    return [*lines, f"language model: {total:,} tokens" + (f", {again:,} of them a second time for probes" if again else "")]


def _state(one: Pass) -> int:
    return sum(2 * BYTES * subject.d_sae for subject in one.subjects)


def _memory(one: Pass) -> int:
    """What is kept of each latent, the weights, the lists and the dense latents of a piece."""
    weights = sum(8 * subject.d_sae * len(subject.statistics.mean) for subject in one.subjects)
    return _state(one) + weights + 16 * LISTED + 3 * 4 * ELEMENTS


def _time(one: Pass) -> list[str]:
    """By the rate of the training, which read the same text and did more for each token."""
    rates = [files.latest(subject.job).get("tokens_per_second") for subject in one.subjects]
    known = [rate for rate in rates if rate]
    if not known:
        return []
    tokens = sum(int(one.text[half].ordinary.sum()) for half in HALVES)
    return [f"time: about {tokens / max(known) / 60:.1f} min, at the {max(known):,.0f} tokens per second of the training"]
