"""What an explainer and a judge are shown of a latent: windows of text with the latent's value on every token.

Explanations are written from windows of the half `fit`, and tested on windows of the half `test` alone.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from saesweep.study.examples import evenly

Group = Literal["top", "decile", "random", "same_token"]
TEST: tuple[Group, ...] = ("decile", "random", "same_token")
ACTIVE_AND_SILENT: tuple[Group, Group] = ("decile", "random")


class Window(NamedTuple):
    tokens: tuple[str, ...]  # joined they are the text
    values: Float[np.ndarray, " tokens"]  # the latent is silent where it is 0

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def active(self) -> Bool[np.ndarray, " tokens"]:
        return self.values > 0


class LatentExamples(NamedTuple):
    """One latent with the windows of each group; a group that has none is empty."""

    path: str  # of its SAE
    control: str | None
    latent: int
    maximum: float  # its largest value on fit
    explain: Mapping[Group, Sequence[Window]]  # of fit: top, largest first; decile, from the weakest up; same_token
    test: Mapping[Group, Sequence[Window]]  # of test: decile, from the weakest up; random; same_token
    rule: str | None = None  # what makes it fire, as found without a language model


def enough(windows: Sequence[Window], count: int) -> list[Window]:
    """At most `count`, of all deciles; none where there are fewer than half of `count`: a score from so few is not one."""
    return evenly(windows, count) if 2 * len(windows) >= count else []
