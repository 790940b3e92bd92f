"""The comparison of two values of which lower is better: difference, interval and verdict.

    difference  b - a, in the units of the measure: above 0 a is better
    percent     100 (1 - a/b), where the intervals of both values lie above zero
    low, high   ends of the 95% interval, over the held-out documents and, where there are several, the seeds (intervals.py)

    better, worse   the interval of the difference excludes 0
    equal           the interval of the percentage lies within EQUAL percent
    open            neither: no significant difference
    none            nothing was varied: no interval, no verdict

The seed variance of a value with a single seed is borrowed: from the other value if that has several seeds, else from a
third curve at the same L0, scaled to the value. A borrowed variance keeps its degrees of freedom.
"""
from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy import ndarray as Array

from saesweep.report.intervals import Interval, Variance, combined, document_variance, interval
from saesweep.report.measured_curve import CurveValue

EQUAL = 1.0  # percent


class BorrowedVariance(NamedTuple):
    """A curve with several seeds at an L0, whose seed variance is used for a value with a single seed."""

    arch: str
    source: CurveValue

    @property
    def variance(self) -> Variance:
        """Of single SAEs."""
        parts = self.source.seed_variances()
        return Variance(sum(part.value for part in parts) * self.source.seeds, min(part.df for part in parts))

    def scaled_to(self, value: CurveValue) -> float:
        """The variance of one SAE of another curve, with the same relative standard deviation if both values are above 0."""
        both_above = min(value.value, self.source.value) > 0
        return self.variance.value * ((value.value / self.source.value) ** 2 if both_above else 1.0)


class _Pair(NamedTuple):
    """Two values on the same documents."""

    a: CurveValue
    b: CurveValue
    borrowed: BorrowedVariance | None

    def interval(self, rows: Array, slope_a: float, slope_b: float, error: float) -> Interval | None:
        """Of a function of both values. slope_a, slope_b: its partial derivatives."""
        documents = document_variance(rows, self.a.weights[: len(rows) - 1])
        return interval(float(rows[0]), [documents, self._seed_variance(slope_a, slope_b)], error)

    def _seed_variance(self, slope_a: float, slope_b: float) -> Variance | None:
        each = ((self.a, slope_a), (self.b, slope_b))
        own = [Variance(slope**2 * v.value, v.df) for value, slope in each for v in value.seed_variances()]
        single = [(value, slope) for value, slope in each if value.seeds == 1]
        if not single:
            return combined(own)
        if self.borrowed is None:
            return None
        borrowed = sum(slope**2 * self.borrowed.scaled_to(value) for value, slope in single)
        return Variance(sum(v.value for v in own) + borrowed, self.borrowed.variance.df)


def compare_values(a: CurveValue, b: CurveValue, borrowed: BorrowedVariance | None = None) -> dict[str, Any]:
    """borrowed: seed variance for a value with a single seed; None where no seed was varied."""
    size = min(len(a.rows), len(b.rows))
    a, b = (value._replace(rows=value.rows[:size], weights=value.weights[: size - 1]) for value in (a, b))
    pair, error = _Pair(a, b, borrowed), a.error + b.error
    difference = pair.interval(b.rows - a.rows, 1, 1, error)
    percent, ends = _percent(pair, difference)
    return {
        "value_a": a.value, "value_b": b.value, "difference": b.value - a.value, **_ends("", difference),
        "percent": percent, **_ends("percent_", ends), "error": error, "varied": _varied(pair, difference),
        "one_seed": min(a.seeds, b.seeds) == 1 and borrowed is None, "p": difference and difference.p, "holm": False,
        "verdict": _verdict(difference, ends),
    }


def _percent(pair: _Pair, difference: Interval | None) -> tuple[float | None, Interval | None]:
    """None where the ratio is meaningless: a value may be 0 or below, or its interval contradicts the difference's."""
    a, b = pair.a.rows, pair.b.rows
    own = [pair.interval(a, 1, 0, pair.a.error), pair.interval(b, 0, 1, pair.b.error)]
    if min(a[0], b[0]) <= 0 or any(found is not None and found.low <= 0 for found in own):
        return None, None
    ratio = float(a[0] / b[0])
    error = (pair.a.error + ratio * pair.b.error) / float(b[0])
    found = pair.interval(100 * (1 - a / b), 100 / float(b[0]), 100 * ratio / float(b[0]), 100 * error)
    if found is not None and difference is not None and _sign(found) != _sign(difference):
        return None, None
    return 100 * (1 - ratio), found


def _ends(prefix: str, found: Interval | None) -> dict[str, float | None]:
    return {f"{prefix}low": found and found.low, f"{prefix}high": found and found.high}


def _sign(found: Interval) -> int:
    """1 where the whole interval is above 0, -1 where it is below, else 0."""
    return (found.low > 0) - (found.high < 0)


def _verdict(difference: Interval | None, percent: Interval | None) -> str:
    if difference is None:
        return "none"
    if sign := _sign(difference):
        return "better" if sign > 0 else "worse"
    same = difference.low == difference.high == 0
    equal = percent is not None and max(-percent.low, percent.high) <= EQUAL
    return "equal" if same or equal else "open"


def _varied(pair: _Pair, difference: Interval | None) -> str | None:
    """What the interval is over: `3 seeds and 88 documents`; a borrowed variance is named by its source."""
    if difference is None:
        return None
    seeds, parts = sorted({pair.a.seeds, pair.b.seeds}), []
    if seeds[0] > 1:
        parts.append(f"{' and '.join(map(str, seeds))} seeds")
    elif pair.borrowed is not None:
        parts.append(f"the {pair.borrowed.source.seeds} seeds of {pair.borrowed.arch}")
    if document_variance(pair.a.rows, pair.a.weights) is not None:
        parts.append(f"{(pair.a.weights > 0).sum()} documents")
    return " and ".join(parts) or None


def swapped(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same comparison with b first; the percentage becomes one of a's value."""
    verdict = {"better": "worse", "worse": "better"}
    other = {"a": found["b"], "b": found["a"], "value_a": found["value_b"], "value_b": found["value_a"]}
    other |= {"difference": -found["difference"], "verdict": verdict.get(found["verdict"], found["verdict"])}
    ends = found["low"], found["high"]
    other["high"], other["low"] = (None if end is None else -end for end in ends)
    other |= {f"{name}_{key}": found.get(f"{name}_{end}") for name in ("l0", "slope") for key, end in ("ab", "ba")}
    for key, end in (("percent", "percent"), ("percent_low", "percent_high"), ("percent_high", "percent_low")):
        other[key] = None if found[end] is None else 100 - 100 / (1 - found[end] / 100)
    return {**found, **other}
