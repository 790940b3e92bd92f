"""Labels of the tokens of any text, by the characters they begin with: kind, script, place in the word and in the sentence."""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

import numpy as np
from jaxtyping import Int64

from saesweep.study.spans import Span, first_characters, to_tokens

WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"\S.*?(?:[.!?。！？]+(?=\s|$)|(?=\n\s*\n)|\Z)", re.DOTALL)  # noqa: RUF001 - the stops of other scripts


def text_labels(document: str, offsets: Int64[np.ndarray, "tokens 2"]) -> list[Span] | None:
    """Spans of tokens."""
    first = first_characters(document, offsets)
    kinds = [
        Span(label, number, number + 1)
        for number, at in enumerate(first) if at < len(document) for label in character_labels(document[at])
    ]
    leading = [
        Span("after a space", number, number + 1)
        for number, (start, end) in enumerate(offsets) if start < end and document[start] == " "
    ]
    return kinds + leading + to_tokens(_places(document), first)


@cache
def character_labels(character: str) -> tuple[str, ...]:
    category = unicodedata.category(character)
    if category[0] == "P":
        return "punctuation", f"`{character}`"
    if category[0] == "N":
        return ("digit",)
    if character == "\n":
        return ("newline",)
    if category[0] != "L":
        return ("blank",) if character.isspace() else ("symbol",)
    script = f"{unicodedata.name(character, 'unknown').split()[0].capitalize()} script"
    return (script, "capital") if category in ("Lu", "Lt") else (script,)


def _places(document: str) -> Iterator[Span]:
    for word in WORD.finditer(document):
        yield Span("at the start of a word", word.start(), word.start() + 1)
        yield Span("within a word", word.start() + 1, word.end())
    for sentence in SENTENCE.finditer(document):
        words = [*WORD.finditer(document, sentence.start(), sentence.end())]
        if len(words) > 1:
            yield Span("in the first word of a sentence", *words[0].span())
            yield Span("in the last word of a sentence", *words[-1].span())
