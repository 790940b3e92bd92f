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


def gather(
    saes: Sequence[Collected], scores: pd.DataFrame, resources: Resources, *, logits: bool, device: str = "auto"
) -> list[OfSAE]:
    """The trained SAEs among `saes` that have scored latents. scores: of scores.csv, with the same paths.

    logits: whether the words of the latents are shown, for which the language model is loaded.
    """
    weights, trained = Weights(), scores.loc[scores["control"].isna()]
    by_path = dict(iter(trained.groupby("path", sort=False)))
    return [_of_sae(sae, by_path[sae.path].reset_index(drop=True), weights, resources, logits, device)
            for sae in saes if sae.control is None and sae.path in by_path]


def _of_sae(
    sae: Collected, scores: pd.DataFrame, weights: Weights, resources: Resources, logits: bool, device: str
) -> OfSAE:
    latents = scores["latent"].to_numpy(np.int64)
    decoder = weights.decoder_array(sae)
    tokenizer = resources.text(sae.config)[1] if has_lm(sae.config) else byte_tokenizer(bos=False, positions=None)
    return OfSAE(
        sae, scores, tokenizer, _logits(sae, latents, weights, resources, device) if logits else None,
        dict(explanations(sae.folder)), None if decoder is None else neighbours(decoder, latents),
        scale=float(weights.loaded(sae).statistics.scale))


def _logits(
    sae: Collected, latents: np.ndarray, weights: Weights, resources: Resources, device: str
) -> Logits | None:
    """None where the rows of the decoder are no directions of the residual stream."""
    rows = weights.decoder_of_resid(sae) if has_lm(sae.config) else None
    if rows is None:
        return None
    model = resources.language_model(on_device(sae.config, device))
    return logits_of(rows[torch.tensor(latents)], unembedding(model.module), histograms=True)


def explanations(job: Path) -> Iterator[tuple[int, Explanation]]:
    """By latent of a trained SAE, as far as a model has written any (judge/of_sae.py)."""
    file = job / "study" / EXPLANATIONS
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        row = json.loads(line)
        if not row["control"] and row["explanation"]:
            yield int(row["latent"]), Explanation(row["explanation"], row["explainer"])
