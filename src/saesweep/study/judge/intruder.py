"""Intruder: of ACTIVE windows in which the latent fires and one in which it is silent, which is the odd one? No explanation.

    intruder_lm    probability given to the right one, by chance 1 / (ACTIVE + 1)

The score `intruder` is the same with embeddings in place of a language model. The intruder stands in each place equally often,
so an answer that is always the same scores chance (2507.08473).
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saesweep.study.judge.choice import probabilities
from saesweep.study.judge.marks import DATA, fenced
from saesweep.study.judge.messages import Answer, Failure, Request
from saesweep.study.judge.tasks import ONE_WORD, Question, Reading, Task
from saesweep.study.judge.windows import ACTIVE_AND_SILENT, LatentExamples, enough

ACTIVE = 4
CHOICES = tuple(str(number) for number in range(1, ACTIVE + 2))
INSTRUCTIONS = (
    f"You get {ACTIVE + 1} numbered excerpts of text. All but one share something: a token, a kind of token, a construction or "
    f"a subject. Find the one that does not. {DATA} Answer with its number alone."
)


def ask(examples: LatentExamples, explanation: str | None, count: int, seed: int) -> list[Question]:
    """One question per silent window; the explanation is not used."""
    active, silent = (enough(examples.test.get(group, ()), count) for group in ACTIVE_AND_SILENT)
    if len(active) < ACTIVE:
        return []
    draw = np.random.default_rng([seed, examples.latent])
    first, questions = int(draw.integers(ACTIVE + 1)), []
    for turn, intruder in enumerate(silent):
        place = (first + turn) % (ACTIVE + 1)
        texts = [active[number].text for number in draw.choice(len(active), ACTIVE, replace=False)]
        texts.insert(place, intruder.text)
        questions.append(Question("intruder", CHOICES[place], _request(texts)))
    return questions


def _request(texts: Sequence[str]) -> Request:
    excerpts = [fenced(f"excerpt {number}", text) for number, text in zip(CHOICES, texts, strict=True)]
    return Request(INSTRUCTIONS, "\n\n".join([*excerpts, "The number of the excerpt that does not belong:"]), ONE_WORD, CHOICES)


def read(question: Question, answer: Answer | Failure) -> float | None:
    found = probabilities(answer, CHOICES)
    return None if found is None else found[question.truth]


def score(readings: Sequence[Reading]) -> dict[str, float]:
    return {"": float(np.mean([one.said for one in readings]))}


INTRUDER = Task(ask, read, score, explained=False)
