"""The examples of a latent as tokens and values."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from saesweep.study.examples import PARTS, Places, choose, common_tokens
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


class Examples(NamedTuple):
    active: Activity
    windows: list[Window]


def examples(sae: OfSAE, places: Places, pieces: Pieces) -> Iterator[Examples]:
    """Of each scored latent, from the half `test`."""
    half = sae.collected.test
    for latent in sae.latents:
        groups = choose(places, half, latent, common_tokens(sae.collected.fit, latent), GROUPS)
        found = []
        for name, group in groups.items():
            for position, part in zip(group.positions.tolist(), group.part.tolist(), strict=True):
                ids, values, at = around(half, latent, position)
                tokens = [pieces.verbatim(int(one)) for one in ids]
                found.append(Window(name, part, tokens, [float(f"{value:.5g}") for value in values], at))
        yield Examples(activity(half, latent), found)


def interval_shares(active: Activity) -> Sequence[float]:
    """Of its activations, in each fifth of [0, maximum]."""
    count = PARTS["interval"]
    part = np.clip((count * active.values / active.maximum).astype(np.int64), 0, count - 1)
    return (np.bincount(part, minlength=count) / max(len(part), 1)).tolist()
