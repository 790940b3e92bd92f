"""The tests of an explanation: each asks questions about windows of test, reads the answers and makes scores of them.

A question whose answer failed or cannot be read is left out of the score. There is no score (nan) where fewer than half of the
questions are answered, or where fewer windows than half of what a group asks for exist.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from saesweep.study.judge.choice import probabilities
from saesweep.study.judge.messages import Answer, Failure, Request
from saesweep.study.judge.windows import LatentExamples

YES_NO = ("yes", "no")
ONE_WORD = 3  # tokens of an answer of one word


class Question(NamedTuple):
    group: str  # what kind of window it is about
    truth: Any
    request: Request


class Reading(NamedTuple):
    """A question with what its answer says."""

    group: str
    truth: Any
    said: Any


class Task(NamedTuple):
    ask: Callable[[LatentExamples, str | None, int, int], list[Question]]  # of the explanation, windows per group, seed
    read: Callable[[Question, Answer | Failure], Any]  # None: failed or unreadable
    score: Callable[[Sequence[Reading]], dict[str, float]]  # by suffix of the column; "" is the score itself
    suffixes: tuple[str, ...] = ("",)
    explained: bool = True  # whether the explanation is part of the question


def scored(task: Task, questions: Sequence[Question], said: Sequence[Any]) -> dict[str, float]:
    """The scores by suffix, and `_failed`: the share of the questions without a readable answer (nan: none were asked)."""
    readings = [Reading(q.group, q.truth, one) for q, one in zip(questions, said, strict=True) if one is not None]
    failed = 1 - len(readings) / len(questions) if questions else math.nan
    if not questions or 2 * len(readings) < len(questions):
        return {**dict.fromkeys(task.suffixes, math.nan), "_failed": failed}
    return {**task.score(readings), "_failed": failed}


def read_yes(question: Question, answer: Answer | Failure) -> float | None:
    """P(yes)."""
    found = probabilities(answer, YES_NO)
    return None if found is None else found["yes"]


def truth_and_said(readings: Sequence[Reading]) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    return np.array([one.truth for one in readings], bool), np.array([one.said for one in readings], float)
