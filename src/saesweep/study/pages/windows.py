"""Windows of text as HTML: each token is a text node, and what a latent is active on is marked by its share of the maximum.

    <li><i>12.3</i>return <b><mark class=s9>self</mark></b>.x</li>

`i` has the value at the token for which the window was chosen, `b` is that token, `mark` a token on which the latent is
active; class s1 to s10 are tenths of the maximum, rounded up. `u` is a token that is pointed out though the latent is silent.
"""
from __future__ import annotations

from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.examples import PARTS, Places
from saesweep.study.hits import Half, TextHalf
from saesweep.study.pieces import Pieces

TENTHS = 10


class Activity(NamedTuple):
    """A latent on a half, in order of position."""

    positions: Int64[np.ndarray, " fires"]
    values: Float32[np.ndarray, " fires"]
    maximum: float

    @property
    def tenths(self) -> Int64[np.ndarray, " fires"]:
        return np.clip(np.ceil(TENTHS * self.values / self.maximum - 1e-6), 1, TENTHS).astype(np.int64)

    @property
    def intervals(self) -> Int64[np.ndarray, " intervals"]:
        """How many of its activations are in each fifth of [0, maximum]."""
        count = PARTS["interval"]
        part = np.clip((count * self.values / self.maximum).astype(np.int64), 0, count - 1)
        return np.bincount(part, minlength=count)

    def at(self, positions: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Its values there; 0 where it is silent."""
        if not len(self.positions):
            return np.zeros(len(positions))
        found = np.minimum(np.searchsorted(self.positions, positions), len(self.positions) - 1)
        return np.where(self.positions[found] == positions, self.values[found], 0.0)


def activity(half: Half, latent: int) -> Activity:
    """Of a latent whose activations were not kept on the whole half: those that were kept."""
    maximum = max(float(half.top.values[latent, 0]), 1e-30)
    try:
        return Activity(*half.hits.of(latent), maximum)
    except KeyError:
        kept = [(some.positions[latent], some.values[latent]) for some in (half.top, half.sample)]
        positions, values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        positions, first = np.unique(positions, return_index=True)
        known = positions >= 0
        return Activity(positions[known], values[first][known], maximum)


class Windows:
    """The windows of one half, for all latents and SAEs of one text and tokenizer."""

    def __init__(self, text: TextHalf, tokenizer: Tokenizer) -> None:
        self.places, pieces = Places(text), Pieces(tokenizer)
        ids, kind = np.unique(text.tokens, return_inverse=True)
        texts = [escape(pieces[int(number)], quote=False) for number in ids]
        words = [texts[k] for k in kind.tolist()]
        self.words = [word if shown else "" for word, shown in zip(words, text.ordinary.tolist(), strict=True)]
        self.ids = text.tokens

    def lines(
        self, active: Activity, positions: Int64[np.ndarray, " n"], pointed: Bool[np.ndarray, " tokens"] | None = None
    ) -> list[str]:
        """A list item for each position. pointed: tokens that are pointed out where the latent is silent; then there is no
        value, and no token for which a window was chosen."""
        first, last = self.places.bounds(positions)
        start, stop = (np.searchsorted(active.positions, ends).tolist() for ends in (first, last))
        values = active.at(positions).tolist()
        hits, tenths = active.positions, active.tenths
        found = []
        for n, (position, begin, end) in enumerate(zip(positions.tolist(), first.tolist(), last.tolist(), strict=True)):
            words, inside = self.words[begin:end], slice(start[n], stop[n])
            for at, tenth in zip((hits[inside] - begin).tolist(), tenths[inside].tolist(), strict=True):
                words[at] = f"<mark class=s{tenth}>{words[at]}</mark>"
            if pointed is None:
                words[position - begin] = f"<b>{words[position - begin]}</b>"
                found.append(f"<li><i>{values[n]:.3g}</i>{''.join(words)}</li>")
            else:
                for at in np.flatnonzero(pointed[begin:end]).tolist():
                    words[at] = f"<u>{words[at]}</u>"
                found.append(f"<li>{''.join(words)}</li>")
        return found
