"""Labels, colours, markers, the L0 axis and histogram bins, shared by the figures and the page."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

LABELS = {"l0": "L0 (active latents per token)", "fvu": "FVU (held-out)", "delta_loss": "Delta loss (nats per token)",
          "loss_recovered": "Loss recovered", "mse": "MSE (training units)", "cosine": "Cosine of x and its reconstruction",
          "relative_reconstruction_bias": "Relative reconstruction bias (below 1: shrinkage)",
          "ce_sae": "Cross-entropy with the SAE (nats per token)", "dead": "Dead latents (share)",
          "frequency_over_1pct": "Latents that fire on over 1% of tokens (share)",
          "frequency_over_10pct": "Latents that fire on over 10% of tokens (share)",
          "recovery": "Recovery of the known directions (cosine)"}
BIN_EDGES = np.linspace(-6, 0, 31)  # log10 of a latent's firing rate


class Style(NamedTuple):
    colour: str
    marker: str  # of matplotlib


STYLES = {"jumprelu": Style("#0072B2", "o"), "gated": Style("#D55E00", "s"), "topk": Style("#00805E", "^"),
          "batchtopk": Style("#B5487F", "D"), "relu": Style("#4A4A4A", "v")}
OTHER_STYLES = [Style("#8A6A00", "<"), Style("#5B2A86", ">"), Style("#7A1F1F", "D"), Style("#1F5F7A", "s")]


def arch_styles(archs: Iterable[str]) -> dict[str, Style]:
    """The fixed styles of the architectures in STYLES, in that order; then the others by name, with OTHER_STYLES in turn."""
    others = sorted((present := set(archs)) - set(STYLES))
    known = {arch: style for arch, style in STYLES.items() if arch in present}
    return known | dict(zip(others, itertools.cycle(OTHER_STYLES)))


def l0_limits(l0: pd.Series) -> tuple[float, float]:
    """The ends of the L0 axis: with a margin, and at least one power of two between them."""
    low, high = l0.min() / 1.25, l0.max() * 1.25
    widen = max(1.0, math.sqrt(2.05 * low / high))
    return low / widen, high * widen


def l0_ticks(low: float, high: float) -> list[float]:
    """Powers of two from low to high, at most seven."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return [2.0**p for p in powers][:: -(-len(powers) // 7)]


def histogram(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Bin edges (log10 of the firing rate), latents per bin, latents that never fired. The first bin holds all rates < 1e-6."""
    fired = np.asarray(rates, float)[np.asarray(rates) > 0]
    counts, edges = np.histogram(np.clip(np.log10(fired), BIN_EDGES[0], BIN_EDGES[-1]), BIN_EDGES)
    return edges, counts, len(rates) - len(fired)
