"""What a terminal shows."""
from __future__ import annotations

from typing import NamedTuple

from saesweep.study.examples import PARTS
from saesweep.study.notebook.data import Example, ExamplesData, ExplainedData

CHOSEN, ACTIVE = "⟦{}⟧", "⟨{}⟩"


class Legend(NamedTuple):
    html: str
    plain: str


_ACTIVE = Legend(
    "The value is that of the token with a frame. The stronger the colour of a token and the thicker its line, the closer it "
    "is to the latent's largest activation.",
    "The value is that of the token in ⟦ ⟧; the latent is active on those in ⟨ ⟩ too.")
_TOKENS = "the commonest tokens of its strongest activations, in text on which it is silent."
LEGEND = {
    "top": _ACTIVE, "decile": _ACTIVE, "interval": _ACTIVE,
    "random": Legend("Text on which it is silent.", "Text on which it is silent."),
    "same_token": Legend(f"Underlined: {_TOKENS}", f"In ⟦ ⟧: {_TOKENS}"),
}


def examples(of: ExamplesData) -> str:
    lines, part = [f"{of.title}: {of.group}", *of.notes], -1
    lines += [LEGEND[of.group].plain] if of.found else []
    for one in of.found:
        if one.part != part and (title := heading(of.group, one.part)):
            lines.append(title)
        part = one.part
        lines.append(_row(one))
    return "\n".join(lines)


def _row(one: Example) -> str:
    words = ("".join(_token(one, n) for n in range(len(one.shown))))
    return f"{activation(one.values[one.at]):>8}  {words}" if one.values[one.at] else f"  {words}"


def _token(one: Example, n: int) -> str:
    if one.values[n]:
        return (CHOSEN if n == one.at else ACTIVE).format(one.shown[n])
    return CHOSEN.format(one.shown[n]) if one.pointed[n] else one.shown[n]


def activation(value: float) -> str:
    return f"{value:.4g}"


def heading(group: str, part: int) -> str:
    """Of a decile or interval; empty for other groups."""
    if group not in PARTS:
        return ""
    end = " (strongest)" if part == PARTS[group] - 1 else " (weakest)" if part == 0 else ""
    return f"{group.capitalize()} {part + 1} of {PARTS[group]}{end}"


def explained(of: ExplainedData) -> str:
    lines = [of.title, of.rule, *of.about_rule, *of.notes, of.explanation and f"\"{of.explanation}\"", *of.about_explanation]
    return "\n".join(line for line in lines if line)
