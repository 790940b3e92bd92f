"""Labelled stretches of a document, in characters and in tokens."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Span(NamedTuple):
    """From `start` to before `end`: characters of a document, or its tokens."""

    label: str
    start: int
    end: int


Labeller = Callable[[str, Int64[np.ndarray, "tokens 2"]], list[Span] | None]  # document, characters of its tokens -> tokens


def first_characters(document: str, offsets: Int64[np.ndarray, "tokens 2"]) -> Int64[np.ndarray, " tokens"]:
    """Of each token the number of its first character that is no blank; of a blank token, that of its first character."""
    blank = np.fromiter((character.isspace() for character in document), bool, len(document))
    ink = np.append(np.flatnonzero(~blank), len(document))
    following = ink[np.searchsorted(ink, np.minimum(offsets[:, 0], len(document)))]
    return np.where(following < offsets[:, 1], following, offsets[:, 0])


def to_tokens(spans: Iterable[Span], first: Int64[np.ndarray, " tokens"]) -> list[Span]:
    """Spans of characters as spans of the tokens whose first character (ascending) lies in them; empty ones are left out."""
    spans = list(spans)
    starts = np.searchsorted(first, np.array([span.start for span in spans], np.int64))
    ends = np.searchsorted(first, np.array([span.end for span in spans], np.int64))
    return [Span(span.label, int(a), int(b)) for span, a, b in zip(spans, starts, ends, strict=True) if a < b]
