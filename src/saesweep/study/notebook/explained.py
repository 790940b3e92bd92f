"""What a study says of a latent in words: its rule, how often it is active, and the explanation of a model."""
from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import SupportsIndex

import pandas as pd

from saesweep.storage import study_tables
from saesweep.study.comparison import catalogue
from saesweep.study.judge.all_tasks import TASKS
from saesweep.study.notebook.studied import Studied
from saesweep.study.notebook.views import OUTER, paragraphs
from saesweep.study.pages.facts import NO_RULE, number
from saesweep.study.pages.gather import explanations
from saesweep.study.pages.groups import percent


@dataclass(frozen=True, repr=False)
class Explained:
    """What is said of a latent. `_repr_html_` is what a notebook shows, `repr` what a terminal shows."""

    title: str
    rule: str | None  # in words; None where there is none
    about_rule: list[str]
    notes: list[str]  # how often the latent is active, and why it was not scored
    explanation: str | None  # of a model
    about_explanation: list[str]
    scores: pd.Series  # by name; empty where it was not scored

    def __repr__(self) -> str:
        quoted = self.explanation and f'"{self.explanation}"'
        lines = [self.title, self.rule, *self.about_rule, *self.notes, quoted, *self.about_explanation]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        rule = f'<p style="font-size: 1.1em">{escape(self.rule)}</p>' if self.rule else ""
        quoted = f"<blockquote>{escape(self.explanation)}</blockquote>" if self.explanation else ""
        about, notes, by = map(paragraphs, (self.about_rule, self.notes, self.about_explanation))
        return f"{OUTER}<p><b>{escape(self.title)}</b></p>{rule}{about}{notes}{quoted}{by}</div>"


def explained(of: Studied, latent: SupportsIndex) -> Explained:
    """Raises UsageError where nothing of the SAE was scored."""
    number, table = of.latent(latent), of.scores()
    title, notes = f"Latent {number} of {of.title}", [of.activity(number)]
    if number not in table.index:
        notes += [] if of.dead(number) else [of.why_not_scored(number)]
        return Explained(title, None, [], notes, None, [], pd.Series(dtype=float))
    row = table.loc[number]
    scores = row[study_tables.score_names(table)].astype(float)
    words = row.get("rule_words")
    rule = words if isinstance(words, str) and words else None
    text = dict(explanations(of.sae.folder)).get(number)
    by = [] if text is None else [_judgement(text.model, row, scores)]
    return Explained(title, rule, [_fit(scores) if rule else NO_RULE], notes, text and text.text, by, scores)


def _fit(scores: pd.Series) -> str:
    r, f1, recall = (scores.get(name) for name in ("rule", "rule_f1", "rule_recall"))
    often = "" if recall is None or recall != recall else f" (fires on {percent(float(recall))} of the tokens where it holds)"
    return f"The rule's r is {number(r)}, its F1 {number(f1)}, its recall {number(recall)}{often}."


def _judgement(model: str, row: pd.Series, scores: pd.Series) -> str:
    found = [f"{catalogue.score(name).words} {number(scores[name])}" for name in TASKS if name in scores.dropna().index]
    judge = row.get("judge")
    by = f" Judged by {judge}: {', '.join(found)}." if found and isinstance(judge, str) else ""
    return f"Written by {model}.{by}"
