"""Sums of the SAEs' numbers, each times a coefficient, with a 95% interval: differences, slopes and means are all of this kind.

    estimate   the mean over seeds of  sum_i c_i number_i,   over the SAEs i of that seed

What the interval is over (joint.py joins the variances):

    several seeds   between the seeds, which are paired: the sum is taken within each seed. Each seed has features of its
                    own, so this includes that they are a sample; of a control, which all seeds share, its features are added
    one seed        the features of each SAE: sum c_i^2 variance_i. It holds for these SAEs only
    documents       the variance of the sum under draws of test documents that are the same for all SAEs of a text

There is no interval where neither seeds nor documents were varied, nor where an SAE of a single seed has too few features.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saesweep.report.intervals import Interval, Variance, combined, interval, seed_variance
from saesweep.study.comparison.joint import half_width
from saesweep.study.comparison.measured import Measured
from saesweep.study.comparison.replicates import draws_variance

Terms = Mapping[int, float]  # coefficient of each SAE
Numbers = Sequence[Measured | None]


class Varied(NamedTuple):
    """What differs between the draws that an interval is over; 0 of what does not."""

    seeds: int
    fewest: int  # features of an SAE
    most: int
    documents: int


class Contrast(NamedTuple):
    estimate: float
    interval: Interval | None
    seeds: int
    effective: float  # the fewest features that one of the SAEs stands on, over all seeds; inf: no features
    varied: Varied | None  # what the interval is over

    @property
    def by_documents(self) -> bool:
        return self.varied is not None and bool(self.varied.documents)

    def as_dict(self) -> dict[str, Any]:
        found = self.interval
        return {"estimate": self.estimate, "low": found and found.low, "high": found and found.high, "p": found and found.p,
                "varied": self.varied and self.varied._asdict(), "one_seed": self.seeds == 1, "seeds": self.seeds}


def contrast(by_seed: Sequence[Terms], numbers: Numbers, error: float = 0.0) -> Contrast:
    """by_seed: the coefficients of the SAEs of each seed. error: bound on a systematic error."""
    values = [sum(c * _number(numbers, i).value for i, c in terms.items()) for terms in by_seed]
    seeds = len(by_seed)
    documents, read = _over_documents(by_seed, numbers)
    shared = _shared(by_seed)
    features = _over_features(shared, numbers)
    of_features = any(_number(numbers, i).features for i in shared)
    known = [documents, features] if features is not None or not of_features else []
    if seeds > 1 and known:
        between = seed_variance(values)
        known.append(Variance(between.value / seeds, between.df))
    found = interval(float(np.mean(values)), known, error, half_width)
    varied = _varied(by_seed, numbers, read) if found else None
    return Contrast(float(np.mean(values)), found, seeds, _effective(by_seed, numbers), varied)


def _number(numbers: Numbers, i: int) -> Measured:
    number = numbers[i]
    assert number is not None, "only SAEs that have the score are in a contrast"
    return number


def _shared(by_seed: Sequence[Terms]) -> dict[int, float]:
    """What does not differ between the seeds: of one seed everything, of several the controls."""
    every = [i for i in by_seed[0] if all(i in terms for terms in by_seed)]
    return {i: float(np.mean([terms[i] for terms in by_seed])) for i in every}


def _over_features(terms: Terms, numbers: Numbers) -> Variance | None:
    """None where one of the SAEs has too few features."""
    each = [(c, _number(numbers, i)) for i, c in terms.items() if c]
    if any(number.features and number.variance is None for _, number in each):
        return None
    return combined([Variance(c**2 * n.variance.value, n.variance.df) for c, n in each if n.variance is not None])


def _over_documents(by_seed: Sequence[Terms], numbers: Numbers) -> tuple[Variance | None, int]:
    """And the number of documents; None and 0 where an SAE has no draws, or draws of another text."""
    each = [(c / len(by_seed), _number(numbers, i)) for terms in by_seed for i, c in terms.items() if c]
    if not each or any(len(n.draws) == 0 for _, n in each) or len({(n.text, len(n.documents)) for _, n in each}) > 1:
        return None, 0
    tokens = np.min([n.documents for _, n in each], axis=0)  # sinks differ between sweeps
    found = draws_variance(np.sum([c * n.draws for c, n in each], axis=0), tokens)
    return found, 0 if found is None else int((tokens > 0).sum())


def _effective(by_seed: Sequence[Terms], numbers: Numbers) -> float:
    """SAEs with a small coefficient do not count, as for the seeds of a curve's value."""
    fewest = []
    for terms in by_seed:
        largest = max(map(abs, terms.values()), default=0.0)
        fewest.append(min((_number(numbers, i).effective for i, c in terms.items() if abs(c) > 0.1 * largest), default=0.0))
    return sum(fewest)


def _varied(by_seed: Sequence[Terms], numbers: Numbers, documents: int) -> Varied:
    used = [_number(numbers, i) for terms in by_seed for i in terms]
    counts = [number.features for number in used if number.features]
    return Varied(len(by_seed) if len(by_seed) > 1 else 0, min(counts, default=0), max(counts, default=0), documents)
