"""What `tokenize` says about Python source: the kind of each token, keywords, brackets, lines, and the token that follows."""
from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from saesweep.study.spans import Span

KINDS = {tokenize.STRING: "string", tokenize.NUMBER: "number", tokenize.COMMENT: "comment", tokenize.NEWLINE: "newline",
         tokenize.NL: "newline", tokenize.OP: "operator"}
STRING_STARTS, STRING_ENDS = (getattr(tokenize, name, None) for name in ("FSTRING_START", "FSTRING_END"))  # Python 3.12
NAMED = {"self", "cls"}  # names that are labels of their own, as keywords are
DEEPEST = 3  # brackets and indents deeper than this count as this
DEFINED = {"def": "function name", "class": "class name"}


class Token(NamedTuple):
    kind: str  # indent and dedent have no characters
    text: str
    start: int  # characters of the document
    end: int
    first_line: int
    last_line: int

    @property
    def own(self) -> str:
        """The token itself where it is a label of its own, else its kind."""
        return f"`{self.text}`" if self.kind in ("operator", "keyword") or self.text in NAMED else self.kind


def line_starts(source: str) -> list[int]:
    """The number of each line's first character."""
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def tokens(source: str, lines: Sequence[int]) -> Iterator[Token]:
    """An f-string is one token in every version of Python. Raises what `tokenize` raises."""
    inside, begin, row = 0, 0, 0
    for kind, text, (first, column), (last, end_column), _ in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = lines[first - 1] + column, lines[last - 1] + end_column
        if kind == STRING_STARTS:
            begin, row = (begin, row) if inside else (start, first)
            inside += 1
        elif kind == STRING_ENDS:
            inside -= 1
            if not inside:
                yield Token("string", source[begin:end], begin, end, row, last)
        elif inside or kind == tokenize.ENDMARKER:
            continue
        elif kind in (tokenize.INDENT, tokenize.DEDENT):
            yield Token("indent" if kind == tokenize.INDENT else "dedent", "", start, start, first, first)
        elif kind == tokenize.NAME:
            yield Token("keyword" if keyword.iskeyword(text) else "name", text, start, end, first, last)
        elif kind in KINDS and end > start:
            yield Token(KINDS[kind], text, start, end, first, last)


def token_spans(all_tokens: Sequence[Token], lines: Sequence[int]) -> Iterator[Span]:
    depth = level = 0
    previous: Token | None = None  # the token before, with characters
    real = [token for token in all_tokens if token.kind not in ("indent", "dedent")]
    following = dict(zip(real, _following(real), strict=True))
    for token in all_tokens:
        if token not in following:
            level += 1 if token.kind == "indent" else -1
            continue
        depth -= token.text in (")", "]", "}") and token.kind == "operator"
        yield from _of_token(token, previous, following[token])
        place = f"in brackets, depth {min(depth, DEEPEST)}" if depth else f"at indent level {min(level, DEEPEST)}"
        yield Span(place, token.start, token.end)
        if previous is None or previous.last_line < token.first_line:
            yield Span("indent", lines[token.first_line - 1], token.start)
        depth += token.text in ("(", "[", "{") and token.kind == "operator"
        previous = token


def _following(real: Sequence[Token]) -> list[Token | None]:
    """Of each token the next one that is neither a comment nor a blank line."""
    found, after = [], None
    for token in reversed(real):
        found.append(after)
        after = after if token.kind == "comment" else token
    return found[::-1]


def _of_token(token: Token, before: Token | None, after: Token | None) -> Iterator[Span]:
    start, end = token.start, token.end
    yield Span(token.kind, start, end)
    if token.own != token.kind:
        yield Span(token.own, start, end)
    if token.kind == "name" and before and before.text in DEFINED:
        yield Span(DEFINED[before.text], start, end)
    if token.kind == "newline" or token.first_line < token.last_line:
        return
    if before is None or before.last_line < token.first_line or before.kind == "newline":
        yield Span("at the start of a line", start, end)
    if after and after.kind == "newline":
        yield Span("at the end of a line", start, end)
    if after and token.kind not in ("string", "comment"):
        yield Span(f"before {after.own}", start, end)
