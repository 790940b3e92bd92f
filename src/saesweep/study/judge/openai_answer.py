"""What a server's chat completion says, whatever else it may be: servers differ, and so do their mistakes."""
from __future__ import annotations

from typing import Any

from saesweep.study.judge.messages import Answer, Failure


def answer_of(completion: Any) -> Answer | Failure:
    """A Failure where it is no chat completion, or has no choice or no text."""
    if not hasattr(completion, "choices"):
        return Failure("an answer that is no chat completion")
    try:
        if not completion.choices:
            return Failure("an answer without choices")
        choice = completion.choices[0]
        if not isinstance(choice.message.content, str):
            return Failure("an answer without text")
        return Answer(choice.message.content, _first_word(choice), choice.finish_reason == "length")
    except (AttributeError, TypeError, KeyError, IndexError):
        return Failure("an answer that is no chat completion")


def _first_word(choice: Any) -> dict[str, float] | None:
    """The log-probabilities of the likeliest tokens at the first place where the answer is not blank."""
    for place in getattr(choice.logprobs, "content", None) or ():
        if place.token.strip():
            top = {one.token: float(one.logprob) for one in place.top_logprobs or ()}
            return top | {place.token: float(place.logprob)}
    return None
