"""Simulation: predict the latent's value on every token of a window from the explanation (Bills et al. 2023).

    simulate            Pearson correlation of predicted and true values over the tokens of all windows at once
    simulate_spearman   the same of their ranks

Half of the windows are of the deciles, half of those in which the latent is silent. Predictions are 0 to 10; the true values
are taken as they are, since a correlation has no scale. An answer that does not give each token one value is unreadable.
"""
from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from saesweep.study.judge.choice import THOUGHTS
from saesweep.study.judge.explanation import described
from saesweep.study.judge.marks import DATA, fenced
from saesweep.study.judge.messages import Answer, Failure, Request
from saesweep.study.judge.metrics import pearson, spearman
from saesweep.study.judge.tasks import Question, Reading, Task
from saesweep.study.judge.windows import ACTIVE_AND_SILENT, LatentExamples, Window, enough

OUT_PER_TOKEN = 6  # tokens of "31: 10" and the end of its line
LINE = re.compile(r"^\s*(\d+)\s*[:.)\t]\s*(\d+(?:\.\d+)?)\s*$", re.MULTILINE)
INSTRUCTIONS = (
    "A feature inside a language model is silent or active on each token of a text, with a strength from 0 (silent) to 10. You "
    "get a description of what makes one feature active, and the numbered tokens of an excerpt, one on each line, in quotes. "
    f"Predict the strength on every token; it is 0 on most. {DATA} Answer with one line for each token, its number, a colon "
    "and the strength, such as 7: 0, and nothing else."
)


def ask(examples: LatentExamples, explanation: str | None, count: int, seed: int) -> list[Question]:
    active, silent = (enough(examples.test.get(group, ()), count) for group in ACTIVE_AND_SILENT)
    if not active or not silent:
        return []
    return [Question(group, window.values.tolist(), _request(window, explanation))
            for group, windows in zip(ACTIVE_AND_SILENT, (active, silent), strict=True) for window in windows]


def _request(window: Window, explanation: str | None) -> Request:
    lines = "\n".join(f"{number}: {json.dumps(token, ensure_ascii=False)}" for number, token in enumerate(window.tokens, 1))
    content = f"{described(explanation)}\n\n{fenced('tokens', lines)}\n\nStrengths:"
    return Request(INSTRUCTIONS, content, OUT_PER_TOKEN * len(window.tokens))


def read(question: Question, answer: Answer | Failure) -> list[float] | None:
    """A value of 0 to 10 for each token, in their order."""
    if isinstance(answer, Failure):
        return None
    found = [(int(number), float(value)) for number, value in LINE.findall(THOUGHTS.sub("", answer.text))]
    complete = [number for number, _ in found] == list(range(1, len(question.truth) + 1))
    return [value for _, value in found] if complete and all(value <= 10 for _, value in found) else None


def score(readings: Sequence[Reading]) -> dict[str, float]:
    truth = np.concatenate([np.asarray(one.truth, float) for one in readings])
    said = np.concatenate([np.asarray(one.said, float) for one in readings])
    return {"": pearson(truth, said), "_spearman": spearman(truth, said)}


SIMULATION = Task(ask, read, score, ("", "_spearman"))
