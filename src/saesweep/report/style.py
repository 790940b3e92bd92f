"""Labels, colours, markers, the L0 axis and histogram bins, shared by the figures and the page."""

import itertools
import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from saesweep.storage.curves import natural, split

LABELS = {"l0": "L0 (active latents per token)", "fvu": "FVU (held-out)", "delta_loss": "Delta loss (nats per token)",
          "loss_recovered": "Loss recovered", "mse": "MSE (training units)", "cosine": "Cosine of x and its reconstruction",
          "relative_reconstruction_bias": "Relative reconstruction bias (below 1: shrinkage)",
          "ce_sae": "Cross-entropy with the SAE (nats per token)", "dead": "Dead latents (share)",
          "frequency_over_1pct": "Latents that fire on over 1% of tokens (share)",
          "frequency_over_10pct": "Latents that fire on over 10% of tokens (share)",
          "firings_over_10pct": "Firings by latents that fire on over 10% of tokens (share)",
          "frequency_max": "Largest share of tokens on which a latent fires",
          "frequency_of_firings": "Share of tokens on which a latent fires, weighted by firings",
          "recovery": "Recovery of the known directions (cosine)",
          "parent_silent_with_child": "Parent's latent silent where its child is active (share)",
          "parent_silent_alone": "Parent's latent silent where it is active alone (share)"}
BIN_EDGES = np.linspace(-6, 0, 31)  # log10 of a latent's firing rate
LIGHTEST = 0.3
ENOUGH = 10  # firings for a rate to be drawn: with fewer its standard error is over a third of it


class Style(NamedTuple):
    colour: str
    marker: str  # of matplotlib
    dash: tuple[int, ...] = ()  # lengths of strokes and gaps; empty: a solid line
    hollow: bool = False  # points without a line: SAEs that others have trained

    @property
    def line(self) -> tuple[int, tuple[float, ...] | None]:
        """The dash as matplotlib takes it, in units of the line's width."""
        return 0, tuple(part / 1.6 for part in self.dash) or None


STYLES = {"jumprelu": Style("#0072B2", "o"), "gated": Style("#D55E00", "s"), "topk": Style("#00805E", "^"),
          "batchtopk": Style("#B5487F", "D"), "relu": Style("#4A4A4A", "v")}
OTHER_STYLES = [Style("#8A6A00", "<"), Style("#5B2A86", ">"), Style("#7A1F1F", "D"), Style("#1F5F7A", "s")]


DASHES = [(), (6, 2), (2, 2), (8, 2, 2, 2), (1, 3), (12, 3)]  # of the variants of an architecture, in turn


def arch_styles(curves: Iterable[str], hollow: Collection[str] = ()) -> dict[str, Style]:
    """The fixed styles of the architectures in STYLES, in that order; then the others by name, with OTHER_STYLES in turn; those
    of `hollow` last.

    The variants of an architecture (storage/curves.py) have its marker, and colours and dashes of their own: the same dash and
    the same shade belong to the same variant of each architecture.
    """
    names = sorted({*curves}, key=natural)
    if hollow:
        own, others = ([name for name in names if (name in hollow) == last] for last in (False, True))
        return arch_styles(own) | {name: one._replace(hollow=True) for name, one in arch_styles(others).items()}
    bases = {name: split(name) for name in names}
    several = dict.fromkeys(str(settings) for _, settings in bases.values())
    found = {}
    for arch, style in _of_archs({arch for arch, _ in bases.values()}).items():
        for name in (name for name in names if bases[name][0] == arch):
            at = list(several).index(str(bases[name][1]))
            shade = at / max(1, len(several) - 1)
            other = style._replace(colour=_shaded(style.colour, shade), dash=DASHES[at % len(DASHES)])
            found[name] = other if len(several) > 1 else style
    return found


def _of_archs(archs: set[str]) -> dict[str, Style]:
    known = {arch: style for arch, style in STYLES.items() if arch in archs}
    return known | dict(zip(sorted(archs - set(STYLES)), itertools.cycle(OTHER_STYLES)))


def _shaded(colour: str, shade: float) -> str:
    """From half as bright (shade 0) to LIGHTEST of the way to white (shade 1)."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    low = [0.55 * part for part in parts]
    high = [part + LIGHTEST * (255 - part) for part in parts]
    return "#" + "".join(f"{round(a + shade * (b - a)):02X}" for a, b in zip(low, high, strict=True))


def l0_limits(l0: pd.Series) -> tuple[float, float]:
    """The ends of the L0 axis: with a margin, and at least one power of two between them."""
    low, high = l0.min() / 1.25, l0.max() * 1.25
    widen = max(1.0, math.sqrt(2.05 * low / high))
    return low / widen, high * widen


def l0_ticks(low: float, high: float) -> list[float]:
    """Powers of two from low to high, at most seven."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return [2.0**p for p in powers][:: -(-len(powers) // 7)]


class Histogram(NamedTuple):
    """Of firing rates."""

    edges: np.ndarray  # log10 of the rate
    counts: np.ndarray  # latents per bin; without `tokens` the first bin holds all rates < 1e-6
    never: int  # latents that never fired
    rare: int  # latents that fired, and fewer than `few` times
    few: int  # at least ENOUGH, such that the histogram begins with a whole bin


def histogram(rates: np.ndarray, tokens: int | None = None) -> Histogram:
    """tokens: on which the rates were measured; where it is None, no latent is rare."""
    rates = np.asarray(rates, float)
    fired, few = rates[rates > 0], 1
    measured = fired
    if tokens is not None:
        lowest = BIN_EDGES[min(np.searchsorted(BIN_EDGES, math.log10(ENOUGH / tokens)), len(BIN_EDGES) - 1)]
        few = math.ceil(10**lowest * tokens)
        measured = fired[fired * tokens > few - 0.5]
    counts, edges = np.histogram(np.clip(np.log10(measured), BIN_EDGES[0], BIN_EDGES[-1]), BIN_EDGES)
    return Histogram(edges, counts, len(rates) - len(fired), len(fired) - len(measured), few)
