"""What a notebook shows: HTML without script or style sheet, whose texts are text nodes, in the colours of the notebook.

The colour of a token and the thickness of its line say its share of the latent's largest activation. MathJax, which would
take a $ in source code for a formula, leaves the classes of the outer element alone.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from saesweep.study.notebook.data import Example, ExamplesData, ExplainedData
from saesweep.study.notebook.plain import LEGEND, activation, heading

OUTER = '<div class="tex2jax_ignore mathjax_ignore">'
ROW = ("white-space: break-spaces; overflow-wrap: anywhere; unicode-bidi: isolate; text-align: left; text-indent: -5em; "
       "padding: .15em 0 .15em 5em; margin: 0; border-bottom: 1px solid rgba(128, 128, 128, .3); list-style: none; "
       "font: .85em/1.6 ui-monospace, monospace")
VALUE = "display: inline-block; width: 5em; text-indent: 0; opacity: .7"
ACTIVE = "color: inherit; background: rgba(255, 150, 0, {:.2f}); border-bottom: {:.1f}px solid rgb(200, 90, 0)"
CHOSEN, POINTED = "outline: 1px solid", "text-decoration: underline dotted 2px"


def examples(of: ExamplesData) -> str:
    legend = f"<p>{escape(LEGEND[of.group].html)}</p>" if of.found else ""
    parts = dict.fromkeys(one.part for one in of.found)
    lists = (f"{_heading(of.group, part)}{_list(of, [one for one in of.found if one.part == part])}" for part in parts)
    return f"{OUTER}<p><b>{escape(of.title)}: {of.group}</b></p>{paragraphs(of.notes)}{legend}{''.join(lists)}</div>"


def paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _heading(group: str, part: int) -> str:
    found = heading(group, part)
    return f"<p><b>{escape(found)}</b></p>" if found else ""


def _list(of: ExamplesData, found: Sequence[Example]) -> str:
    rows = "".join(f'<li style="{ROW}">{_row(of, one)}</li>' for one in found)
    return f'<ol style="margin: 0; padding: 0">{rows}</ol>'


def _row(of: ExamplesData, one: Example) -> str:
    value = f'<span style="{VALUE}">{activation(one.values[one.at])}</span>' if one.values[one.at] else ""
    return value + "".join(_token(of, one, n) for n in range(len(one.shown)))


def _token(of: ExamplesData, one: Example, n: int) -> str:
    text, value, share = escape(one.shown[n]), one.values[n], min(one.values[n] / of.largest, 1.0)
    if value:
        style = ACTIVE.format(0.1 + 0.5 * share, 0.5 + 2.5 * share) + (f"; {CHOSEN}" if n == one.at else "")
        return f'<mark style="{style}" title="{activation(value)}">{text}</mark>'
    return f'<u style="{POINTED}">{text}</u>' if one.pointed[n] else text


def explained(of: ExplainedData) -> str:
    rule = f'<p style="font-size: 1.1em">{escape(of.rule)}</p>' if of.rule else ""
    quoted = f"<blockquote>{escape(of.explanation)}</blockquote>" if of.explanation else ""
    return (f"{OUTER}<p><b>{escape(of.title)}</b></p>{rule}{paragraphs(of.about_rule)}{paragraphs(of.notes)}{quoted}"
            f"{paragraphs(of.about_explanation)}</div>")
