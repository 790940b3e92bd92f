"""A decision list that says when a latent fires: at most LEAVES leaves of one condition each, and one of them of two.

It is grown on fit: each leaf is the condition of largest mutual information with firing among the tokens that no leaf before
it covers, if more tokens fire with it than without, and if the information is significant:

    N I(fires; condition) > log(conditions) + log(N) / 2

The two best conditions are also joined with each other one, if that adds as much again. The predicted value of a token is the
mean value of its leaf on fit. The scores are r of value and prediction on test, the balanced accuracy of firing, and the
recall of the rule: how often the latent fires where a leaf holds (2509.23717).
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.labels import name_of
from saesweep.study.scores.conditions import Conditions
from saesweep.study.scores.ground import Activity, Ground
from saesweep.study.scores.lookup import Sums, prediction
from saesweep.study.scores.moments import information

LEAVES, JOINED = 3, 2
TOUCHED = 3  # tokens on which a condition and firing must coincide to be considered
PLACES = ("in ", "before ", "after ", "at ", "within ")  # labels that say where, not what


class Leaf(NamedTuple):
    conditions: tuple[int, ...]  # all hold
    mean: float  # value on fit


class Rule(NamedTuple):
    leaves: list[Leaf]
    rest: float  # mean value on the tokens of no leaf


def holding(of: Conditions, conditions: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    """The positions at which all conditions hold."""
    found = of.holding(conditions[0])
    for condition in conditions[1:]:
        found = np.intersect1d(found, of.holding(condition), assume_unique=True)
    return found


def grow(ground: Ground, a: Activity) -> Rule:
    remaining = _Remaining(ground, a)
    leaves: list[Leaf] = []
    while len(leaves) < LEAVES and (found := remaining.best(join=all(len(leaf.conditions) == 1 for leaf in leaves))):
        leaves.append(Leaf(found, remaining.cover(found)))
    return Rule(leaves, remaining.mean)


class _Remaining:
    """The tokens that no leaf covers yet, and what is counted on them."""

    def __init__(self, ground: Ground, a: Activity):
        self.ground, self.positions, self.values, self.n = ground, a.positions, a.values, ground.n
        self.holds = ground.holds
        self.covered = np.zeros(0, np.int64)

    @property
    def mean(self) -> float:
        return float(self.values.sum()) / max(self.n, 1)

    def best(self, join: bool) -> tuple[int, ...] | None:
        """The conditions of the next leaf; None where none is significant."""
        least = np.log(len(self.ground.of) + 1) + np.log(max(self.n, 1)) / 2
        both = self.ground.of.count(self.positions)
        candidates, gains = self._gains(self.holds, both)
        if not len(gains) or gains.max() <= least:
            return None
        ranked = candidates[np.argsort(-gains, kind="stable")[:JOINED]]
        found, most = (int(ranked[0]),), float(gains.max())
        for one in map(int, ranked if join else ()):
            if (joined := self._join(one)) and joined[1] > most + least:
                found, most = (one, joined[0]), joined[1] - least
        return found

    def _join(self, one: int) -> tuple[int, float] | None:
        """The condition with which `one` is joined best, and the information of both."""
        of = self.ground.of
        within = np.intersect1d(self.positions, of.holding(one), assume_unique=True)
        covered = np.intersect1d(self.covered, of.holding(one), assume_unique=True)
        candidates, gains = self._gains(self.ground.pairs(one) - of.count(covered), of.count(within))
        gains = np.where(candidates == one, 0.0, gains)
        return (int(candidates[gains.argmax()]), float(gains.max())) if len(gains) else None

    def _gains(self, holds: np.ndarray, both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Conditions with which firing is more frequent than without, and N times their information."""
        candidates = np.flatnonzero(both >= TOUCHED)
        holds, both, fires = holds[candidates], both[candidates], len(self.positions)
        more = both * self.n > fires * holds
        return candidates[more], self.n * information(self.n, fires, holds[more], both[more])

    def cover(self, conditions: tuple[int, ...]) -> float:
        """Take the tokens of a leaf out; their mean value."""
        mine = holding(self.ground.of, conditions)
        mine = np.setdiff1d(mine[self.ground.counted[mine]], self.covered, assume_unique=True)
        inside = np.isin(self.positions, mine, assume_unique=True)
        mean = float(self.values[inside].sum()) / max(len(mine), 1)
        self.positions, self.values, self.n = self.positions[~inside], self.values[~inside], self.n - len(mine)
        self.holds = self.holds - self.ground.of.count(mine)
        self.covered = np.sort(np.concatenate([self.covered, mine]))
        return mean


def measure(
    rule: Rule, leaf: Int64[np.ndarray, " tokens"], test: Ground, a: Activity
) -> tuple[Sums, Sums]:
    """The sums of `pearson`, and those of `balanced_accuracy` (a leaf holds: it should fire). leaf: of `leaf_of`."""
    means, count = np.array([one.mean for one in rule.leaves] + [rule.rest]), len(rule.leaves)
    inside = leaf < count
    tokens = [test.by_document(np.flatnonzero((leaf == number) & test.counted)) for number in range(count)]
    tokens.append(test.tokens - sum(tokens, np.zeros(test.documents)))
    y, yy = (sum(number * mean**power for number, mean in zip(tokens, means, strict=True)) for power in (1, 2))
    tp, fires = test.by_document(a.positions[inside[a.positions]]), test.by_document(a.positions)
    fp, fn = test.tokens - tokens[-1] - tp, fires - tp
    accuracy = {"tp": tp, "fp": fp, "tn": tokens[-1] - fn, "fn": fn}
    return prediction(test, a, np.asarray(y), np.asarray(yy), means[leaf[a.positions]]), accuracy


def words(rule: Rule, of: Conditions, tokenizer: Tokenizer) -> str:
    """`fires on `self`, or after `def``; an empty rule has no words."""
    leaves = (" ".join(_condition(number, of, tokenizer) for number in sorted(leaf.conditions)) for leaf in rule.leaves)
    return f"fires {', or '.join(leaves)}" if rule.leaves else ""


def _condition(number: int, of: Conditions, tokenizer: Tokenizer) -> str:
    if number < of.labels:
        name = of.names[number]
        return name if name.startswith(PLACES) else f"on {name}"
    number, common = number - of.labels, len(of.common)
    token = name_of(tokenizer, int(of.ids[of.common[number % common]]))
    return f"on {token}" if number < common else f"after {token}"


def leaf_of(rule: Rule, of: Conditions) -> Int64[np.ndarray, " tokens"]:
    """The number of each token's leaf; that of the rest where none holds."""
    found = np.full(len(of.known), len(rule.leaves), np.int64)
    for number, leaf in reversed(list(enumerate(rule.leaves))):
        found[holding(of, leaf.conditions)] = number
    return found
