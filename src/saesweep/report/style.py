"""What is drawn of a sweep, in the figures and on the page alike: words, looks, panels, mean lines, the l0 axis, bins."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

LABELS = {"l0": "L0 (active latents per token)", "fvu": "FVU (held out)", "delta_loss": "Delta loss (nats per token)",
          "loss_recovered": "Loss recovered", "mse": "MSE (training units)", "cosine": "Cosine of x and its reconstruction",
          "relative_reconstruction_bias": "Relative reconstruction bias (below 1: shrinkage)",
          "ce_sae": "Cross-entropy with the SAE (nats per token)", "dead": "Dead latents (share)",
          "frequency_over_1pct": "Latents that fire on over 1% of tokens (share)",
          "frequency_over_10pct": "Latents that fire on over 10% of tokens (share)",
          "recovery": "Recovery of the known directions (cosine)"}
RATES = np.linspace(-6, 0, 31)  # log10 of a latent's firing rate: the edges of the histogram's bins


class Look(NamedTuple):
    colour: str
    marker: str  # matplotlib's letter


LOOKS = {"jumprelu": Look("#0072B2", "o"), "gated": Look("#D55E00", "s"), "topk": Look("#00805E", "^"),
         "batchtopk": Look("#B5487F", "D"), "relu": Look("#4A4A4A", "v")}
FURTHER = [Look("#8A6A00", "<"), Look("#5B2A86", ">"), Look("#7A1F1F", "D"), Look("#1F5F7A", "s")]


def looks(archs: pd.Series) -> dict[str, Look]:
    """The look of each architecture, the well-known first: fixed for those, in turn for others."""
    present = set(archs)
    new = sorted(present - set(LOOKS))
    return {a: LOOKS[a] for a in LOOKS if a in present} | {a: FURTHER[i % len(FURTHER)] for i, a in enumerate(new)}


def span(l0: pd.Series) -> tuple[float, float]:
    """The l0 axis: a little air, and wide enough to hold a power of two."""
    low, high = l0.min() / 1.25, l0.max() * 1.25
    widen = max(1.0, math.sqrt(2.05 * low / high))
    return low / widen, high * widen


def ticks(low: float, high: float) -> list[float]:
    """Powers of two between the two, at most seven."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return [2.0**p for p in powers][:: -(-len(powers) // 7)]


def histogram(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Edges (log10 of the firing rate), latents per bin, latents that never fired. Rates under 1e-6 are in the first bin."""
    fired = np.asarray(rates, float)[np.asarray(rates) > 0]
    counts, edges = np.histogram(np.clip(np.log10(fired), RATES[0], RATES[-1]), RATES)
    return edges, counts, len(rates) - len(fired)
