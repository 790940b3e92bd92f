"""What may be said of two numbers of which less is better, and how sure it is.

    difference  b - a, in the measure's own units: above 0 a is better
    percent     100 (1 - a/b), where both are above zero beyond their own intervals
    low, high   95% intervals of both, over the held-out documents and, where there are several, the seeds (intervals.py)

    better, worse   the interval of the difference does not hold 0
    equal           the interval of the percentage lies within EQUAL percent
    open            else: the two are not told apart
    none            nothing was varied, so there is no interval and nothing is said

Where one of the two has a single seed, the spread between the other one's seeds stands for it, or that of a third curve
there, as a share of the value; what is borrowed and what it is borrowed from is one estimate, with its degrees of freedom.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy import ndarray as Array

from saesweep.report.intervals import Interval, Variance, interval, of_documents, together
from saesweep.report.measured_curve import Reading

EQUAL = 1.0  # percent


class Lender(NamedTuple):
    """A curve with several seeds at an L0, whose spread stands for that of one with a single seed."""

    arch: str
    reading: Reading

    @property
    def spread(self) -> Variance:
        """Of single SAEs."""
        parts = self.reading.of_seeds()
        total = sum(part.value for part in parts) * self.reading.count
        return Variance(total, min(part.df for part in parts))

    def lent(self, to: Reading) -> float:
        """The variance of one SAE of another curve: of the same size beside the value, where both are above 0."""
        both_above = min(to.value, self.reading.value) > 0
        return self.spread.value * ((to.value / self.reading.value) ** 2 if both_above else 1.0)


class _Pair(NamedTuple):
    """Two readings on the same documents."""

    a: Reading
    b: Reading
    lender: Lender | None

    def interval(self, rows: Array, slope_a: float, slope_b: float, error: float) -> Interval | None:
        """Of a number of both, with how much it moves per unit of each one's value."""
        documents = of_documents(rows, self.a.weights[: len(rows) - 1])
        return interval(float(rows[0]), [documents, self._seeds(slope_a, slope_b)], error)

    def _seeds(self, slope_a: float, slope_b: float) -> Variance | None:
        each = ((self.a, slope_a), (self.b, slope_b))
        own = [Variance(slope**2 * v.value, v.df) for reading, slope in each for v in reading.of_seeds()]
        borrowing = [(reading, slope) for reading, slope in each if reading.count == 1]
        if not borrowing:
            return together(own)
        if self.lender is None:
            return None
        lent = sum(slope**2 * self.lender.lent(reading) for reading, slope in borrowing)
        return Variance(sum(v.value for v in own) + lent, self.lender.spread.df)


def judged(a: Reading, b: Reading, lender: Lender | None = None) -> dict[str, Any]:
    """lender: whose spread between seeds stands for that of a reading that has one seed; None where no seed was varied."""
    size = min(len(a.rows), len(b.rows))
    pair = _Pair(*(r._replace(rows=r.rows[:size], weights=r.weights[: size - 1]) for r in (a, b)), lender)
    difference = pair.interval(pair.b.rows - pair.a.rows, 1, 1, a.error + b.error)
    percent, ends = _percent(pair, difference)
    return {
        "value_a": a.value, "value_b": b.value, "difference": b.value - a.value, **_ends("", difference),
        "percent": percent, **_ends("percent_", ends), "error": a.error + b.error, "varied": _varied(pair, difference),
        "one_seed": min(a.count, b.count) == 1 and lender is None, "p": difference and difference.p, "holm": False,
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
    same = difference.low == difference.high == 0
    equal = percent is not None and max(-percent.low, percent.high) <= EQUAL
    return "equal" if same or equal else "open"


def _varied(pair: _Pair, difference: Interval | None) -> str | None:
    """`3 seeds and 88 documents`; of a borrowed spread whose it is."""
    if difference is None:
        return None
    counts, said = sorted({pair.a.count, pair.b.count}), []
    if counts[0] > 1:
        said.append(f"{' and '.join(map(str, counts))} seeds")
    elif pair.lender is not None:
        said.append(f"the spread of {pair.lender.arch}'s {pair.lender.reading.count} seeds")
    if of_documents(pair.a.rows, pair.a.weights) is not None:
        said.append(f"{(pair.a.weights > 0).sum()} documents")
    return " and ".join(said) or None


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
