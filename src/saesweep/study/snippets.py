"""A few scored latents of each SAE with their strongest windows as plain text, for a table in W&B."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from saesweep.config.settings import has_lm
from saesweep.study.examples import Places, choose, common_tokens
from saesweep.study.hits import TextHalf
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.pieces import Pieces

RANKS = {"best": 0.0, "upper quartile": 0.25, "median": 0.5, "lower quartile": 0.75, "worst": 1.0}  # by the score `rule`
WINDOWS = 3
COLUMNS = ("path", "arch", "sparsity", "seed", "rank", "latent", "rule_words", "rule", "frequency",
           *(f"window_{n + 1}" for n in range(WINDOWS)))


def snippets(saes: Sequence[OfSAE]) -> pd.DataFrame:
    """A row per latent: its SAE, rule in words, score and frequency, and windows of the test half, strongest first."""
    places = {id(sae.collected.test.text): Places(sae.collected.test.text) for sae in saes}
    pieces = cache(lambda name: Pieces(next(sae.tokenizer for sae in saes if sae.collected.config["model"]["name"] == name)))
    rows = [row for sae in saes if has_lm(sae.collected.config) and "rule" in sae.scores
            for row in _of_sae(sae, places[id(sae.collected.test.text)], pieces(sae.collected.config["model"]["name"]))]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _of_sae(sae: OfSAE, places: Places, pieces: Pieces) -> Iterator[dict[str, Any]]:
    ranked = sae.scores.dropna(subset=["rule"]).sort_values("rule", ascending=False, kind="stable")
    if not len(ranked):
        return
    at = {round(share * (len(ranked) - 1)): rank for rank, share in reversed(RANKS.items())}  # of few latents the first ranks
    for number, rank in sorted(at.items()):
        row: Mapping[str, Any] = ranked.iloc[number].to_dict()
        yield {**{key: row.get(key) for key in COLUMNS}, "rank": rank, **_windows(sae, int(row["latent"]), places, pieces)}


def _windows(sae: OfSAE, latent: int, places: Places, pieces: Pieces) -> dict[str, str]:
    half = sae.collected.test
    top = choose(places, half, latent, common_tokens(sae.collected.fit, latent), {"top": WINDOWS})["top"]
    return {f"window_{n + 1}": window(half.text, position, pieces) for n, position in enumerate(top.positions.tolist())}


def window(text: TextHalf, position: int, pieces: Pieces) -> str:
    """The tokens around a position, without special ones: `the «token» that fires`."""
    tokens = text.window(position)
    shown = [(n, pieces[int(text.tokens[n])]) for n in np.arange(tokens.start, tokens.stop)[text.ordinary[tokens]]]
    return "".join(_marked(piece) if n == position else piece for n, piece in shown)


def _marked(piece: str) -> str:
    """A blank before a word stays before the mark."""
    word = piece.lstrip(" ")
    return f"{piece[: len(piece) - len(word)]}«{word}»"
