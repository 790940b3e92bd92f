"""What the pages need of one trained SAE."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from saesweep.config.settings import target
from saesweep.lm.tokenizer import Tokenizer
from saesweep.storage import study_tables
from saesweep.study.hits import Collected
from saesweep.study.pages.neighbours import Neighbours
from saesweep.study.scores.logits import Logits


class Explanation(NamedTuple):
    text: str
    model: str  # that wrote it


class OfSAE(NamedTuple):
    collected: Collected  # its path is that of scores.csv
    scores: pd.DataFrame  # its rows of scores.csv
    tokenizer: Tokenizer
    logits: Logits | None = None  # a row per row of `scores`
    explanations: Mapping[int, Explanation] = {}  # by latent
    nearest: Neighbours | None = None  # a row per row of `scores`
    scale: float = 1.0  # raw units per training unit; logits, nearest and scale: of gather.Completion

    @property
    def latents(self) -> list[int]:
        """The scored latents, in the order of `scores`."""
        return self.scores["latent"].astype(int).tolist()

    @property
    def names(self) -> list[str]:
        """The scores that it has."""
        return [name for name in study_tables.score_names(self.scores) if bool(self.scores[name].count())]

    @property
    def place(self) -> str:
        """`gemma3_270m, resid, layer 9`."""
        config = self.collected.config
        return f"{config['model']['name']}, {config['site']['name']}, layer {config['layer']}"


def titles(saes: Sequence[OfSAE]) -> list[str]:
    """`topk 32, seed 1`, `topk width=4096 32`: the seed where there are several, the hook point where there are several, the
    path where nothing else tells two apart."""
    seeds, places = {sae.collected.config["seed"] for sae in saes}, {sae.place for sae in saes}
    found = [f"{sae.collected.curve} {_target(sae)}" + f", seed {sae.collected.config['seed']}" * (len(seeds) > 1)
             + f", {sae.place}" * (len(places) > 1) for sae in saes]
    several = {title for title in found if found.count(title) > 1}
    return [f"{title}, {sae.collected.path}" if title in several else title for title, sae in zip(found, saes, strict=True)]


def _target(sae: OfSAE) -> str:
    sparsity = target(sae.collected.config)
    return "fixed coefficient" if sparsity is None else f"{sparsity:g}"
