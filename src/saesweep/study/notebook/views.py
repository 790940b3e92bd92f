"""The examples of a latent as a notebook shows them (HTML), as a terminal does (text), and as a table.

The HTML has no script or style sheet; its texts are text nodes, in the colours of the notebook. The colour of a token and the
thickness of its line say its share of the latent's largest activation. MathJax, which would take a $ in source code for a
formula, leaves the classes of the outer element alone.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import groupby
from typing import NamedTuple

import pandas as pd

from saesweep.study.examples import PARTS

COLUMNS = ["value", "share", "token", "document", "index", "position", "part", "tokens", "values", "at"]
OUTER = '<div class="tex2jax_ignore mathjax_ignore">'
ROW = ("white-space: break-spaces; overflow-wrap: anywhere; unicode-bidi: isolate; text-align: left; text-indent: -5em; "
       "padding: .15em 0 .15em 5em; margin: 0; border-bottom: 1px solid rgba(128, 128, 128, .3); list-style: none; "
       "font: .85em/1.6 ui-monospace, monospace")
VALUE = "display: inline-block; width: 5em; text-indent: 0; opacity: .7"
ACTIVE = "color: inherit; background: rgba(255, 150, 0, {:.2f}); border-bottom: {:.1f}px solid rgb(200, 90, 0)"
CHOSEN, POINTED = "outline: 1px solid", "text-decoration: underline dotted 2px"
_ACTIVE = (
    "The value is that of the token with a frame. The stronger the colour of a token and the thicker its line, the closer it "
    "is to the latent's largest activation.",
    "The value is that of the token in ⟦ ⟧; the latent is active on those in ⟨ ⟩ too.")
_TOKENS = "the commonest tokens of its strongest activations, in text on which it is silent."
LEGEND = {  # in HTML, in text
    "top": _ACTIVE, "decile": _ACTIVE, "interval": _ACTIVE, "random": ("Text on which it is silent.",) * 2,
    "same_token": (f"Underlined: {_TOKENS}", f"In ⟦ ⟧: {_TOKENS}"),
}


class Example(NamedTuple):
    position: int  # in the test half
    document: int
    index: int  # of the token in its document
    part: int  # of PARTS, from 0, the weakest; 0 in other groups
    tokens: list[str]  # of the window, as they stand in the text
    shown: list[str]  # the same, with visible whitespace
    values: list[float]  # in the units of `encode`
    at: int  # the token in `tokens` for which the window was chosen
    pointed: list[bool]  # tokens that are pointed out though the latent is silent

    def text(self) -> str:
        words = "".join(self._token(n) for n in range(len(self.shown)))
        return f"{_activation(self.values[self.at]):>8}  {words}" if self.values[self.at] else f"  {words}"

    def _token(self, n: int) -> str:
        chosen = n == self.at if self.values[n] else self.pointed[n]
        return f"⟦{self.shown[n]}⟧" if chosen else f"⟨{self.shown[n]}⟩" if self.values[n] else self.shown[n]

    def html(self, largest: float) -> str:
        value = f'<span style="{VALUE}">{_activation(self.values[self.at])}</span>' if self.values[self.at] else ""
        return f'<li style="{ROW}">{value}{"".join(self._mark(n, largest) for n in range(len(self.shown)))}</li>'

    def _mark(self, n: int, largest: float) -> str:
        text, value, share = escape(self.shown[n]), self.values[n], min(self.values[n] / largest, 1.0)
        if value:
            style = ACTIVE.format(0.1 + 0.5 * share, 0.5 + 2.5 * share) + (f"; {CHOSEN}" if n == self.at else "")
            return f'<mark style="{style}" title="{_activation(value)}">{text}</mark>'
        return f'<u style="{POINTED}">{text}</u>' if self.pointed[n] else text


@dataclass(frozen=True, repr=False)
class Examples:
    """Some examples of a latent. `_repr_html_` is what a notebook shows, `repr` what a terminal shows."""

    title: str
    group: str
    notes: list[str]  # what is to be known beside them
    largest: float  # activation of the latent on the half, in the units of `encode`
    found: list[Example]  # strongest part first

    def __len__(self) -> int:
        return len(self.found)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per example; the columns are described at `StudiedSAE.examples`."""
        rows = [{
            "value": one.values[one.at], "share": one.values[one.at] / self.largest, "token": one.tokens[one.at],
            "document": one.document, "index": one.index, "position": one.position, "part": one.part + 1,
            "tokens": one.tokens, "values": one.values, "at": one.at} for one in self.found]
        columns = [key for key in COLUMNS if key != "part" or self.group in PARTS]
        return pd.DataFrame(rows, columns=pd.Index(columns))

    def _parts(self) -> Iterator[tuple[str, list[Example]]]:
        """The examples of each decile or interval with its heading; of other groups all, with an empty one."""
        for part, several in groupby(self.found, lambda one: one.part):
            yield _heading(self.group, part), list(several)

    def __repr__(self) -> str:
        lines = [f"{self.title}: {self.group}", *self.notes] + [LEGEND[self.group][1]] * bool(self.found)
        for heading, several in self._parts():
            lines += [heading] * bool(heading) + [one.text() for one in several]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        html = f"{OUTER}<p><b>{escape(self.title)}: {self.group}</b></p>{paragraphs(self.notes)}"
        html += paragraphs([LEGEND[self.group][0]] * bool(self.found))
        for heading, several in self._parts():
            html += f"<p><b>{escape(heading)}</b></p>" if heading else ""
            html += f'<ol style="margin: 0; padding: 0">{"".join(one.html(self.largest) for one in several)}</ol>'
        return f"{html}</div>"


def paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _activation(value: float) -> str:
    return f"{value:.4g}"


def _heading(group: str, part: int) -> str:
    if group not in PARTS:
        return ""
    end = " (strongest)" if part == PARTS[group] - 1 else " (weakest)" if part == 0 else ""
    return f"{group.capitalize()} {part + 1} of {PARTS[group]}{end}"
