"""What a decoder row does to the logits, read off the weights (Bloom and Lin 2024). More is not better.

    logits = W_U (g * d), less their mean over the words        g: gain of the language model's final norm

    logit_kurtosis    excess kurtosis over the words
    logit_top10       share of the TOP largest in the sum of the positive ones
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saesweep.lm.unembedding import Unembedding
from saesweep.study.hits import Collected
from saesweep.study.scores.of_sae import Extra
from saesweep.study.scores.row_histograms import Counting, Histograms

TOP = 10
CELLS = 2**24  # words x latents at a time, 64 MB


class Logits(NamedTuple):
    """Of each direction."""

    kurtosis: Float[np.ndarray, " n"]
    top10: Float[np.ndarray, " n"]
    highest: Int64[np.ndarray, "n top"]  # words whose logits it raises most, most first
    lowest: Int64[np.ndarray, "n top"]
    highest_values: Float[np.ndarray, "n top"]  # their logits, less the mean over the words
    lowest_values: Float[np.ndarray, "n top"]
    histograms: Histograms | None = None  # of the logits of all words, less their mean


@torch.no_grad()
def logits(
    directions: Float[Tensor, "n d_model"], of: Unembedding, cells: int = CELLS, histograms: bool = False
) -> Logits:
    """A part of the words at a time: the vocabulary is large."""
    d = directions.float().to(of.gain.device) * of.gain
    n, words, top = len(d), len(of.W_U), min(TOP, len(of.W_U))
    step = max(top, cells // max(n, 1))
    mean = d @ sum((part.float().sum(0) for part in of.W_U.split(step)), torch.zeros_like(of.gain)) / words
    second, fourth, positive = (torch.zeros(n, dtype=torch.float64, device=d.device) for _ in range(3))
    best, worst = _Largest(n, d), _Largest(n, d)
    counting = Counting(n, d.device) if histograms else None
    for number, part in enumerate(of.W_U.split(step)):
        found = d @ part.float().T - mean[:, None]
        squares = found.double().square()
        second, fourth = second + squares.sum(1), fourth + squares.square().sum(1)
        positive = positive + found.clamp(min=0).double().sum(1)
        best.see(found, number * step)
        worst.see(-found, number * step)
        if counting:
            counting.see(found)
    kurtosis = fourth / words / (second / words).square().clamp(min=1e-300) - 3
    share = best.values.clamp(min=0).double().sum(1) / positive.clamp(min=1e-300)
    return Logits(*(one.cpu().numpy() for one in (
        kurtosis, share, best.words, worst.words, best.values, -worst.values)),
        histograms=counting.histograms() if counting else None)


class _Largest:
    """The TOP largest logits so far, and their words."""

    def __init__(self, n: int, like: Tensor):
        self.values = torch.empty(n, 0, device=like.device)
        self.words = torch.empty(n, 0, dtype=torch.long, device=like.device)

    def see(self, found: Float[Tensor, "n part"], first: int) -> None:
        values, at = found.topk(min(TOP, found.shape[1]), dim=1)
        values, words = torch.cat([self.values, values], 1), torch.cat([self.words, at + first], 1)
        self.values, order = values.topk(min(TOP, values.shape[1]), dim=1)
        self.words = words.gather(1, order)


class LogitScores(Extra):
    """decoder: the decoder rows [d_sae, d_model] of an SAE; None where they do not write to the residual stream, and of a
    control that has none."""

    def __init__(self, of: Unembedding, decoder: Callable[[Collected], Float[Tensor, "d_sae d_model"] | None]):
        self.of, self.decoder = of, decoder

    def of_latents(self, sae: Collected, latents: Int64[np.ndarray, " n"]) -> Mapping[str, Float[np.ndarray, " n"]]:
        rows = self.decoder(sae)
        if rows is None or not len(latents):
            missing = np.full(len(latents), np.nan)
            return {"logit_kurtosis": missing, "logit_top10": missing}
        found = logits(rows[torch.from_numpy(latents).to(rows.device)], self.of)
        return {"logit_kurtosis": found.kurtosis, "logit_top10": found.top10}
