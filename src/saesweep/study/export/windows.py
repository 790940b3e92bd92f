"""The scored latents of an SAE with their examples as tokens and values."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from saesweep.study.examples import Places, choose, common_tokens
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.pages.windows import Activity, activity
from saesweep.study.pieces import Pieces, around

GROUPS = {"top": 20, "interval": 25}


class Window(NamedTuple):
    group: str
    part: int  # number of the interval, from the weakest
    tokens: list[str]
    values: list[float]  # in training units; 0 where the latent is silent
    at: int  # the token for which the window was chosen


class Latent(NamedTuple):
    number: int  # of its row
    row: Mapping[Any, Any]  # of scores.csv
    active: Activity
    windows: list[Window]


def latents(sae: OfSAE, pieces: Pieces) -> Iterator[Latent]:
    """The scored latents, with examples from the half `test`."""
    half = sae.collected.test
    places = Places(half.text)
    for number, row in enumerate(sae.scores.to_dict("records")):
        latent = int(row["latent"])
        groups = choose(places, half, latent, common_tokens(sae.collected.fit, latent), GROUPS)
        found = []
        for name, group in groups.items():
            for position, part in zip(group.positions.tolist(), group.part.tolist(), strict=True):
                ids, values, at = around(half, latent, position)
                tokens = [pieces.verbatim(int(one)) for one in ids]
                found.append(Window(name, part, tokens, rounded(values), at))
        yield Latent(number, row, activity(half, latent), found)


def short(value: float) -> float:
    return float(f"{value:.5g}")


def rounded(values: np.ndarray | Iterable[float]) -> list[float]:
    return [short(float(value)) for value in values]
