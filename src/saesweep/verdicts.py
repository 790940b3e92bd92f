"""What may be said of two numbers of which less is better, and how sure it is.

    difference  b - a, in the measure's own units: above 0 a is better
    percent     100 (1 - a/b), where both are above zero beyond their own intervals
    low, high   95% intervals of both, over the held-out documents and, where there are several, the seeds (intervals.py)

    better, worse   the interval of the difference does not hold 0
    equal           the interval of the percentage lies within EQUAL percent
    open            else: the two are not told apart
    none            nothing was varied, so there is no interval and nothing is said
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy import ndarray as Array

from saesweep.intervals import Interval, Variance, interval, of_documents
from saesweep.measured_curve import Reading

EQUAL = 1.0  # percent


class _Pair(NamedTuple):
    """Two readings on the same documents."""

    a: Reading
    b: Reading
    spreads: tuple[float, float] | None  # variance of each one's value between seeds; None where no seed was varied
    df: tuple[float, float]

    def interval(self, rows: Array, slope_a: float, slope_b: float, error: float) -> Interval | None:
        """Of a number of both, with how much it moves per unit of each one's value."""
        variances = [of_documents(rows, self.a.weights[: len(rows) - 1])]
        if self.spreads is not None:
            parts = zip(self.spreads, (slope_a, slope_b), self.df, strict=True)
            variances += [Variance(slope**2 * spread, df) for spread, slope, df in parts]
        return interval(float(rows[0]), [v for v in variances if v is not None], error)


def judged(a: Reading, b: Reading, borrowed: Variance | None) -> dict[str, Any]:
    """borrowed: the spread between seeds where one of the two has a single seed; None where no seed was varied."""
    size = min(len(a.rows), len(b.rows))
    a, b = (r._replace(rows=r.rows[:size], weights=r.weights[: size - 1]) for r in (a, b))
    spreads = None if borrowed is None else [(r.spread or borrowed) for r in (a, b)]
    pair = _Pair(a, b, spreads and tuple(s.value / r.seeds for s, r in zip(spreads, (a, b), strict=True)),
                 tuple(s.df for s in spreads or ()))
    difference = pair.interval(b.rows - a.rows, 1, 1, a.error + b.error)
    percent, ends = _percent(pair, difference)
    return {
        "value_a": float(a.rows[0]), "value_b": float(b.rows[0]), "difference": float(b.rows[0] - a.rows[0]),
        **_ends("", difference), "percent": percent, **_ends("percent_", ends), "error": a.error + b.error,
        "varied": _varied(pair), "one_seed": borrowed is None, "p": difference and difference.p, "holm": False,
        "verdict": _verdict(difference, ends),
    }


def _percent(pair: _Pair, difference: Interval | None) -> tuple[float | None, Interval | None]:
    """None where a ratio says nothing: a value that may be 0 or below, or ends that contradict the difference's."""
    a, b = pair.a.rows, pair.b.rows
    own = [pair.interval(a, 1, 0, pair.a.error), pair.interval(b, 0, 1, pair.b.error)]
    if min(a[0], b[0]) <= 0 or any(found is not None and found.low <= 0 for found in own):
        return None, None
    ratio = float(a[0] / b[0])
    error = (pair.a.error + ratio * pair.b.error) / float(b[0])
    found = pair.interval(100 * (1 - a / b), 100 / float(b[0]), 100 * ratio / float(b[0]), 100 * error)
    if found is not None and _sign(found) != _sign(difference):
        return None, None
    return 100 * (1 - ratio), found


def _ends(prefix: str, found: Interval | None) -> dict[str, float | None]:
    return {f"{prefix}low": found and found.low, f"{prefix}high": found and found.high}


def _sign(found: Interval) -> int:
    """1 where all of it is above 0, -1 where all is below."""
    return (found.low > 0) - (found.high < 0)


def _verdict(difference: Interval | None, percent: Interval | None) -> str:
    if difference is None:
        return "none"
    if sign := _sign(difference):
        return "better" if sign > 0 else "worse"
    equal = percent is not None and max(-percent.low, percent.high) <= EQUAL
    return "equal" if equal else "open"


def _varied(pair: _Pair) -> str | None:
    """`3 seeds and 88 documents`."""
    a, b = pair.a.seeds, pair.b.seeds
    seeds = [] if pair.spreads is None else [f"{a} seeds" if a == b else f"{a} and {b} seeds"]
    documents = of_documents(pair.a.rows, pair.a.weights) is not None and len(pair.a.rows) > 1
    return " and ".join(seeds + ([f"{(pair.a.weights > 0).sum()} documents"] if documents else [])) or None


def turned(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same verdict with b first: so many percent of a's value is b's lower."""
    swap = {"better": "worse", "worse": "better"}
    other = {"a": found["b"], "b": found["a"], "value_a": found["value_b"], "value_b": found["value_a"]}
    other |= {"difference": -found["difference"], "verdict": swap.get(found["verdict"], found["verdict"])}
    ends = found["low"], found["high"]
    other["high"], other["low"] = (None if end is None else -end for end in ends)
    other |= {f"l0_{key}": found.get(f"l0_{end}") for key, end in ("ab", "ba")}
    for key, end in (("percent", "percent"), ("percent_low", "percent_high"), ("percent_high", "percent_low")):
        other[key] = None if found[end] is None else 100 - 100 / (1 - found[end] / 100)
    return {**found, **other}
