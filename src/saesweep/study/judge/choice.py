"""The probabilities of the words between which an answer chooses.

With log-probabilities of the first word: p(c) = sum of exp(logprob) over the words that begin with c, divided by the sum over
all choices. Without them the chosen word has probability 1. An answer that names no choice has none.
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from saesweep.study.judge.messages import Answer, Failure

THOUGHTS = re.compile(r"^.*</think>", re.DOTALL)
WORD = re.compile(r"\w+")


def probabilities(answer: Answer | Failure, choices: Sequence[str]) -> dict[str, float] | None:
    """None where the answer failed or names no choice."""
    if isinstance(answer, Failure):
        return None
    return _from_logprobs(answer.logprobs or {}, choices) or _from_text(answer.text, choices)


def _from_logprobs(logprobs: Mapping[str, float], choices: Sequence[str]) -> dict[str, float] | None:
    found = dict.fromkeys(choices, 0.0)
    for word, logprob in logprobs.items():
        if (choice := _bare(word)) in found:
            found[choice] += math.exp(min(logprob, 0.0))
    total = sum(found.values())
    return {choice: value / total for choice, value in found.items()} if total > 0 else None


def _from_text(text: str, choices: Sequence[str]) -> dict[str, float] | None:
    word = WORD.search(THOUGHTS.sub("", text))
    if word is None or word[0].lower() not in choices:
        return None
    return {choice: float(choice == word[0].lower()) for choice in choices}


def _bare(word: str) -> str:
    return word.strip(" \t\n\r\"'`*.,:;!()▁Ġ").lower()
