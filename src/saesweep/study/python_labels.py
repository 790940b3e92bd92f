"""Labels of the tokens of Python source, exact and free: by `tokenize` and by `ast` (python_tokens.py, python_tree.py).

A token of the language model has the labels of its first character that is no blank; one that reaches into another Python
token is `mixed`.
"""
from __future__ import annotations

import tokenize
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from saesweep.study.python_tokens import Token, line_starts, token_spans, tokens
from saesweep.study.python_tree import tree_spans
from saesweep.study.spans import Span, first_characters, to_tokens


def python_labels(document: str, offsets: Int64[np.ndarray, "tokens 2"]) -> list[Span] | None:
    """Spans of tokens; None where the document does not tokenize or parse."""
    if document.count("\r") != document.count("\r\n"):
        return None  # `tokenize` and `ast` would number its lines differently
    try:
        lines = line_starts(document)
        found = list(tokens(document, lines))
        spans = [*token_spans(found, lines), *tree_spans(document)]
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError, MemoryError, IndexError):
        return None
    first = first_characters(document, offsets)
    return to_tokens(spans, first) + _mixed(found, first, offsets)


def _mixed(found: Sequence[Token], first: Int64[np.ndarray, " tokens"], offsets: Int64[np.ndarray, "tokens 2"]) -> list[Span]:
    starts = [token.start for token in found if token.end > token.start]
    inside = np.searchsorted(starts, offsets[:, 1]) - np.searchsorted(starts, first, side="right")
    return [Span("mixed", int(number), int(number) + 1) for number in np.flatnonzero(inside > 0)]
