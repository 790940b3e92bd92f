"""The slope along which a point without neighbours is moved to another L0.

    slope    d value / d log L0, in units of the value's scale: about d log value / d log L0
    secants  slopes between neighbouring points of a curve (matching.py)
    range    from the smallest to the largest secant of the curves below, and a margin at both ends:

        of the hook point   MARGIN of the width of the prior range
        of the model        the same measure at all its hook points, where no curve of the hook point has a secant: twice that
        prior               PRIOR, where no curve of the model has one

The value moves along the middle of the range, and half of its width bounds the error (matching.py).

PRIOR holds all secants seen: FVU -0.86 to -0.20 (Gemma 3 270M, SmolLM2 135M, a random transformer and `synthetic`, SAEs of
five architectures at L0 2 to 66), delta loss -0.90 to -0.33 where the language model is trained, up to 0.8 where it is random.
MARGIN covers the values of a curve left out from the others' secants (docs/results.md).
"""
from collections.abc import Mapping, Sequence

from saesweep.report.matching import SlopeRange
from saesweep.report.measured_curve import Curve

PRIOR = {"fvu": (-1.2, 0.0), "delta_loss": (-2.0, 1.0)}
MARGIN = 0.125


def with_slopes(curves: Mapping[int, Sequence[Curve]], models: Mapping[int, str], measure: str) -> dict[int, list[Curve]]:
    """The curves of one measure by hook point, each with the range of slopes for its points without neighbours.

    models: the language model of each hook point.
    """
    here = {place: [slope for curve in found for slope in curve.secants()] for place, found in curves.items()}
    every = {place: [slope for other, found in here.items() if models[other] == models[place] for slope in found]
             for place in curves}
    ranges = {place: slope_range(here[place], every[place], measure) for place in curves}
    return {place: [curve.with_slopes(ranges[place]) for curve in found] for place, found in curves.items()}


def slope_range(hook_point: Sequence[float], model: Sequence[float], measure: str) -> SlopeRange:
    """hook_point, model: the secants of its curves."""
    low, high = PRIOR[measure]
    for secants, source, margin in ((hook_point, "hook point", MARGIN), (model, "model", 2 * MARGIN)):
        if secants:
            return SlopeRange(min(secants) - margin * (high - low), max(secants) + margin * (high - low), source)
    return SlopeRange(low, high, "prior")
