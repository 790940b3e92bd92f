"""The explanation of a latent by a language model, from windows of fit.

Shown are the strongest windows, windows of all deciles, and windows with the same tokens in which the latent is silent; tokens
above SHARE of the latent's largest value are marked (Bills et al. 2023; Paulo et al. 2024, arXiv 2410.13928; the contrasts as
in Bricken et al. 2023).
"""
from __future__ import annotations

import re
from collections.abc import Sequence

from saesweep.study.examples import evenly
from saesweep.study.judge.choice import THOUGHTS
from saesweep.study.judge.marks import DATA, Marks, fenced, unused_marks
from saesweep.study.judge.messages import Answer, Failure, Request
from saesweep.study.judge.windows import Group, LatentExamples, Window

SHARE = 0.3  # of the latent's largest value on fit, not of the window's
WINDOWS: dict[Group, int] = {"top": 10, "decile": 10, "same_token": 10}
MAX_OUT = 30  # tokens
LONGEST = 300  # characters of an explanation that enters a prompt
INSTRUCTIONS = (
    "You study one feature inside a language model. On each token of a text the feature is silent or active, with a strength "
    "from 0 to 10. You get excerpts of text; the tokens on which it is active with a strength above 3 are marked. Say in at "
    "most 20 words what makes this feature active. Name the token or the kind of token, and the context if that matters. Be "
    f"specific. {DATA} Answer with the description alone, on one line."
)
TITLES: dict[Group, str] = {
    "top": "Excerpts in which the feature is strongest", "decile": "Excerpts in which it is active, from weak to strong",
    "same_token": "Excerpts with the same tokens in which it is silent",
}


def explanation_request(examples: LatentExamples) -> Request | None:
    """None where there is no window in which the latent is active."""
    shown: dict[Group, Sequence[Window]] = {group: _shown(examples, group) for group in WINDOWS}
    if not shown["top"] and not shown["decile"]:
        return None
    marks = unused_marks(window.text for windows in shown.values() for window in windows)
    parts = [f"Marked tokens stand between {marks.open} and {marks.close}."]
    for group, windows in shown.items():
        if windows:
            parts += [f"{TITLES[group]}:", *(_excerpt(window, marks, examples.maximum) for window in windows)]
    return Request(INSTRUCTIONS, "\n\n".join([*parts, "Description:"]), MAX_OUT)


def _shown(examples: LatentExamples, group: Group) -> Sequence[Window]:
    windows, count = examples.explain.get(group, ()), WINDOWS[group]
    return windows[:count] if group == "top" else evenly(windows, count)


def _excerpt(window: Window, marks: Marks, maximum: float) -> str:
    strength = min(round(10 * float(window.values.max()) / maximum), 10) if maximum > 0 else 0
    return fenced(f"excerpt, strength {strength}", marks.put(window.tokens, window.values > SHARE * maximum))


def read_explanation(answer: Answer | Failure) -> str | None:
    """One line of at most LONGEST characters; None where the answer failed or says nothing."""
    if isinstance(answer, Failure):
        return None
    lines = [line.strip() for line in THOUGHTS.sub("", answer.text).splitlines() if line.strip()]
    text = re.sub(r"^(description|explanation|answer)\s*:\s*", "", lines[0], flags=re.IGNORECASE) if lines else ""
    return text.strip().strip("\"'`*").strip()[:LONGEST] or None


def described(explanation: str | None) -> str:
    """The part of a judge's prompt that gives the explanation; None: it answers without one."""
    return fenced("description", explanation) if explanation else "No description is given."
