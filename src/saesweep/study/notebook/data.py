"""What the views of a notebook and of a terminal are made of."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd


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


@dataclass(frozen=True, repr=False)
class ExamplesData:
    title: str
    group: str
    notes: list[str]  # what is to be known beside them
    largest: float  # activation of the latent on the half, in the units of `encode`
    found: list[Example]  # strongest part first


@dataclass(frozen=True, repr=False)
class ExplainedData:
    title: str
    rule: str | None  # in words; None where there is none
    about_rule: list[str]
    notes: list[str]  # how often the latent is active, and why it was not scored
    explanation: str | None  # of a model
    about_explanation: list[str]
    scores: pd.Series  # by name; empty where it was not scored
