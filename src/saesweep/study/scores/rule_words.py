"""A rule in words: "fires on `self`, or after `def`"."""
from __future__ import annotations

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.labels import name_of
from saesweep.study.scores.conditions import Conditions
from saesweep.study.scores.rule import Rule

PLACES = ("in ", "before ", "after ", "at ", "within ")  # labels that say where, not what


def words(rule: Rule, of: Conditions, tokenizer: Tokenizer) -> str:
    """An empty rule has no words."""
    leaves = (" ".join(_condition(number, of, tokenizer) for number in sorted(leaf.conditions)) for leaf in rule.leaves)
    return f"fires {', or '.join(leaves)}" if rule.leaves else ""


def _condition(number: int, of: Conditions, tokenizer: Tokenizer) -> str:
    if number < of.labels:
        name = of.names[number]
        return name if name.startswith(PLACES) else f"on {name}"
    number, common = number - of.labels, len(of.common)
    token = name_of(tokenizer, int(of.ids[of.common[number % common]]))
    return f"on {token}" if number < common else f"after {token}"
