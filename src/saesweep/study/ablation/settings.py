"""The settings of an ablation: conf/ablate.yaml, and what is typed after the folders."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from saesweep.config.ranges import Count, Index, OneOf, Share
from saesweep.config.settings import Settings
from saesweep.config.walk import Keys
from saesweep.study.settings import of_file

FILE = "conf/ablate.yaml"


class Evaluation(Keys):
    tokens: Count | None
    lm_tokens: Index | None
    lm_blocks: Count | None
    calibration_tokens: Count | None


class Ablate(Keys):
    """The keys of conf/ablate.yaml, which says what each is."""

    threshold: Share
    draws: Index
    lm_draws: Index
    seed: Index
    device: Annotated[str, OneOf("auto", "cpu", "cuda")]
    evaluation: Evaluation


def settings(words: Sequence[str] = ()) -> dict[str, Any]:
    """The file with the words key=value in place of what it says. Raises UsageError for a key or value that is wrong."""
    return of_file(FILE, {}, words, Ablate)


def evaluated(job: Settings, given: Settings) -> Settings:
    """The settings of a job, with those of the evaluation that are given in place of its own."""
    return {**job, "evaluation": job["evaluation"] | {key: value for key, value in given.items() if value is not None}}
