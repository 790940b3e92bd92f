"""Fuzzing: are the marked tokens those on which the latent fires?

Each window of test in which it fires is shown twice: with its active tokens marked, and with as many silent tokens of the same
window. A window with more active tokens than silent ones is left out.

    fuzz, fuzz_balanced    AUROC and balanced accuracy of P(yes), right marks against wrong ones
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saesweep.study.judge.explanation import described
from saesweep.study.judge.marks import DATA, fenced, unused_marks
from saesweep.study.judge.messages import Request
from saesweep.study.judge.metrics import auroc, balanced_accuracy
from saesweep.study.judge.tasks import ONE_WORD, YES_NO, Question, Reading, Task, read_yes, truth_and_said
from saesweep.study.judge.windows import LatentExamples, Window, enough

INSTRUCTIONS = (
    "A feature inside a language model is active on some tokens of a text and silent on the others. You get a description of "
    "what makes one feature active, and an excerpt of text in which some tokens are marked. Either these are the tokens on "
    f"which the feature is active, or they were chosen among the others. {DATA} Answer with one word: yes if the marked tokens "
    "fit the description, no if they do not."
)


def ask(examples: LatentExamples, explanation: str | None, count: int, seed: int) -> list[Question]:
    usable = [window for window in examples.test.get("decile", ()) if 0 < window.active.sum() <= (~window.active).sum()]
    draw = np.random.default_rng([seed, examples.latent])
    return [Question(group, group == "right", _request(window, marked, explanation))
            for window in enough(usable, count)
            for group, marked in (("right", window.active), ("wrong", _others(window, draw)))]


def _others(window: Window, draw: np.random.Generator) -> np.ndarray:
    marked = np.zeros(len(window.tokens), bool)
    marked[draw.choice(np.flatnonzero(~window.active), int(window.active.sum()), replace=False)] = True
    return marked


def _request(window: Window, marked: np.ndarray, explanation: str | None) -> Request:
    marks = unused_marks([window.text])
    content = (f"{described(explanation)}\n\nMarked tokens stand between {marks.open} and {marks.close}.\n\n"
               f"{fenced('excerpt', marks.put(window.tokens, marked))}\n\nDo the marked tokens fit the description?")
    return Request(INSTRUCTIONS, content, ONE_WORD, YES_NO)


def score(readings: Sequence[Reading]) -> dict[str, float]:
    truth, said = truth_and_said(readings)
    return {"": auroc(truth, said), "_balanced": balanced_accuracy(truth, said)}


FUZZ = Task(ask, read_yes, score, ("", "_balanced"))
