"""The slope along which a point without neighbours is moved to another L0.

    slope    d value / d log L0, in units of the value's scale: about d log value / d log L0
    secants  lines through neighbouring points of a curve (matching.py), at an L0 within a factor NEAR
    range    from the smallest to the largest slope of these secants, and a margin at both ends:

        hook point   of the curves at the hook point: MARGIN of the width of the prior range
        model        where they have none, of the same measure at all hook points of the model: twice that
        prior        where those have none either: PRIOR

The value moves along the middle of the range, and half of its width bounds the error (matching.py).

PRIOR holds all secants seen: FVU -0.86 to -0.20 (Gemma 3 270M, SmolLM2 135M, a random transformer and `synthetic`, SAEs of
four architectures at L0 2 to 66), delta loss -0.90 to -0.33 where the language model is trained, up to 0.8 where it is random.
MARGIN: how often the bound covers real curves is in docs/results.md.
"""
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from saesweep.report.matching import Secant, SlopeRange
from saesweep.report.measured_curve import Curve

PRIOR = {"fvu": (-1.2, 0.0), "delta_loss": (-2.0, 1.0)}
MARGIN = 1 / 6
NEAR = 4.0  # ratio of two L0: slopes change along a curve


def with_slopes(curves: Mapping[int, Sequence[Curve]], models: Mapping[int, str], measure: str) -> dict[int, list[Curve]]:
    """The curves of one measure by hook point, each with the ranges of slopes for its points without neighbours.

    models: the language model of each hook point.
    """
    here = {place: [secant for curve in found for secant in curve.secants()] for place, found in curves.items()}
    every = {place: [secant for other, found in here.items() if models[other] == models[place] for secant in found]
             for place in curves}
    ranges = {place: partial(slope_range, here[place], every[place], measure) for place in curves}
    return {place: [curve.with_slopes(ranges[place]) for curve in found] for place, found in curves.items()}


def slope_range(hook_point: Sequence[Secant], model: Sequence[Secant], measure: str, log_l0: float) -> SlopeRange:
    """At an L0. hook_point, model: the secants of its curves."""
    low, high = PRIOR[measure]
    for secants, source, margin in ((hook_point, "hook point", MARGIN), (model, "model", 2 * MARGIN)):
        near = [secant.slope for secant in secants if abs(secant.log_l0 - log_l0) <= np.log(NEAR)]
        if near:
            return SlopeRange(min(near) - margin * (high - low), max(near) + margin * (high - low), source)
    return SlopeRange(low, high, "prior")
