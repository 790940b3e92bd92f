"""From what a study has scored to what its pages and its export show: tokenizer, logits, explanations, nearest rows."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from saesweep.config.settings import has_lm
from saesweep.data.resources import Resources
from saesweep.lm.tokenizer import byte_tokenizer
from saesweep.lm.unembedding import unembedding
from saesweep.study.hits import Collected
from saesweep.study.judge.of_sae import EXPLANATIONS
from saesweep.study.pages.neighbours import neighbours
from saesweep.study.pages.of_sae import Explanation, OfSAE
from saesweep.study.passes import on_device
from saesweep.study.scores.logits import Logits
from saesweep.study.scores.logits import logits as logits_of
from saesweep.study.weights import Weights


def gather(saes: Sequence[Collected], scores: pd.DataFrame, resources: Resources) -> list[OfSAE]:
    """The trained SAEs among `saes` that have scored latents; no weight is loaded.

    scores: of scores.csv, with the same paths.
    """
    trained = scores.loc[scores["control"].isna()]
    by_path = dict(iter(trained.groupby("path", sort=False)))
    return [_of_sae(sae, by_path[sae.path].reset_index(drop=True), resources)
            for sae in saes if sae.control is None and sae.path in by_path]


def _of_sae(sae: Collected, scores: pd.DataFrame, resources: Resources) -> OfSAE:
    tokenizer = resources.text(sae.config)[1] if has_lm(sae.config) else byte_tokenizer(bos=False, positions=None)
    return OfSAE(sae, scores, tokenizer, explanations=dict(explanations(sae.folder)))


class Completion:
    """Adds what takes the weights of an SAE, and of its language model.

    logits: whether the words of the latents are shown, for which the language model is loaded.
    """

    def __init__(self, resources: Resources, *, logits: bool, device: str = "auto") -> None:
        self.resources, self.logits, self.device, self.weights = resources, logits, device, Weights()

    def __call__(self, sae: OfSAE) -> OfSAE:
        latents, decoder = sae.scores["latent"].to_numpy(np.int64), self.weights.decoder_array(sae.collected)
        return sae._replace(
            logits=self._logits(sae.collected, latents) if self.logits else None,
            nearest=None if decoder is None else neighbours(decoder, latents),
            scale=float(self.weights.loaded(sae.collected).statistics.scale))

    def _logits(self, sae: Collected, latents: np.ndarray) -> Logits | None:
        """None where the rows of the decoder are no directions of the residual stream, and of an encoder."""
        has_head = has_lm(sae.config) and self.resources.text(sae.config)[1].causal
        rows = self.weights.decoder_of_resid(sae) if has_head else None
        if rows is None:
            return None
        model = self.resources.language_model(on_device(sae.config, self.device))
        return logits_of(rows[torch.tensor(latents)], unembedding(model.module), histograms=True)


def explanations(job: Path) -> Iterator[tuple[int, Explanation]]:
    """By latent of a trained SAE, as far as a model has written any (judge/of_sae.py)."""
    file = job / "study" / EXPLANATIONS
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        row = json.loads(line)
        if not row["control"] and row["explanation"]:
            yield int(row["latent"]), Explanation(row["explanation"], row["explainer"])
