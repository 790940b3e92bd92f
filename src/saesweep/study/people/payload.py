"""What a rater's page holds: examples of each latent under its blind name, and nothing that tells the SAE.

Activations are tenths of the latent's largest, rounded up, so that neither a threshold nor a scale can be read from them.
The examples are of the half `fit`: the strongest, and some from a uniform sample, evenly over its deciles.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saesweep.study.examples import evenly
from saesweep.study.hits import Collected, Half
from saesweep.study.people.draw import Item, Source, blind
from saesweep.study.people.session import Session
from saesweep.study.people.settings import RateSettings
from saesweep.study.pieces import Piece, Pieces, pieces_around, values_in

# The positions on fit of a latent's examples: `top`, strongest first; `decile`, as many of each decile, weakest first.
Chooser = Callable[[Collected, int], Mapping[str, Sequence[int]]]


def payload(
    session: Session, rater: str, items: Sequence[Item], collected: Mapping[Source, Collected], choose: Chooser,
    texts: Mapping[str, Pieces], settings: RateSettings,
) -> dict[str, Any]:
    """collected: each SAE and control. texts: the tokens' texts of each SAE by its path."""
    shown = []
    for item in items:
        of = collected[item.source]
        examples = _examples(of, item.latent, choose(of, item.latent), texts[item.source.path], settings)
        shown.append({"item": blind(session.secret, item), **examples})
    return {"study": session.study, "rater": rater, "items": shown}


def _examples(
    collected: Collected, latent: int, positions: Mapping[str, Sequence[int]], texts: Pieces, settings: RateSettings,
) -> dict[str, list]:
    half = collected.fit
    sample = evenly(positions["decile"], settings.spread)
    sample.sort(key=lambda at: -values_in(half, latent, slice(at, at + 1))[0])
    return {"top": [_window(half, latent, at, texts) for at in positions["top"][: settings.top]],
            "spread": [_window(half, latent, at, texts) for at in sample]}


def _window(half: Half, latent: int, position: int, texts: Pieces) -> dict[str, Any]:
    pieces = pieces_around(half, latent, position, texts)
    before = half.text.ordinary[half.text.window(position).start : position]
    return {"text": [piece.text for piece in pieces], "tenths": [tenths(piece) for piece in pieces], "at": int(before.sum())}


def tenths(piece: Piece) -> int:
    """0 where the latent is silent, else 1 to 10."""
    return min(math.ceil(10 * piece.share - 1e-6), 10) if piece.share > 0 else 0
