"""The sentences of a rating session. None says more than its interval."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.study.people.proportions import Estimate
from saesweep.study.people.read import Ratings


def sentences(ratings: Ratings, found: Mapping[str, Any], delta: float) -> list[str]:
    """found: the content of agreement.json."""
    return [*_counts(ratings), *ratings.conflicts, *_shares(found), *_differences(found["differences"], delta),
            *_control(found, delta), *_agreement(found["agreement"])]


def _counts(ratings: Ratings) -> list[str]:
    rows = ratings.rows
    raters, skipped = {row.rater for row in rows}, sum(row.answer == "skip" for row in rows)
    latents = len({row.of for row in rows if not row.control})
    out = [f"{_count(len(raters), 'rater')} gave {_count(len(rows), 'answer')} about {_count(latents, 'latent')} of the SAEs; "
           f"{skipped} of them {'is a skip' if skipped == 1 else 'are skips'}."]
    waiting = [f"{rater} {open}" for rater, open in ratings.open.items() if open]
    return out + [f"Not answered yet: {', '.join(waiting)}."] * bool(waiting)


def _shares(found: Mapping[str, Any]) -> list[str]:
    if not found["architectures"]:
        return []
    groups = found["architectures"] | ({"random control": found["control"]} if found["control"]["latents"] else {})
    return ["Share of latents with one meaning (yes), and mean of no = 0, maybe = 1, yes = 2, with 95% intervals over latents, "
            "for these SAEs and raters:",
            *(f"  {name}: {percent(one['yes'])} of {_count(one['latents'], 'latent')}, mean {number(one['mean'])}"
              for name, one in groups.items())]


def _differences(pairs: Sequence[Mapping[str, Any]], delta: float) -> list[str]:
    return [f"{_verdict(pair['a'], pair['b'], pair['verdict'], pair['yes'], delta)}; "
            f"the means differ by {number(pair['mean'], '+')}." for pair in pairs]


def _verdict(a: str, b: str, verdict: str, gap: Estimate, delta: float) -> str:
    words = points(gap)
    if verdict == "better":
        return f"{a} has a larger share of yes than {b}, by {words}"
    if verdict == "worse":
        return f"{b} has a larger share of yes than {a}, by {points(Estimate(-gap.value, -gap.high, -gap.low))}"
    if verdict == "equal":
        return f"{a} and {b} have equal shares of yes within {100 * delta:g} points: {words}"
    if verdict == "open":
        return f"{a} and {b} are not told apart: {words}"
    return f"{a} and {b} are not compared, for lack of ratings"


def _control(found: Mapping[str, Any], delta: float) -> list[str]:
    control = found["control"]
    if not control["latents"]:
        return ["No latent of the random control was rated, so that it is open whether people can tell."]
    verdict = _verdict("The SAEs", "the random control", control["verdict"], control["difference"]["yes"], delta)
    return [f"{verdict.replace('The SAEs has', 'The SAEs have')}."]


def _agreement(found: Mapping[str, Any]) -> list[str]:
    out, oneself = [], found["with_oneself"]
    if found["latents"]:
        parts = [f"Krippendorff's ordinal alpha {number(found['krippendorff_ordinal'])}"]
        if found["fleiss"]["latents"]:
            parts.append(f"Fleiss' kappa {number(found['fleiss']['kappa'])}")
        out.append(f"Agreement beyond chance on {_count(found['latents'], 'common latent')}: {'; '.join(parts)}.")
    pairs = [f"{pair['a']} and {pair['b']} {number(pair['kappa'])} on {pair['latents']}" for pair in found["cohen_quadratic"]
             if pair["latents"]]
    if pairs:
        out.append(f"Pairs of raters, Cohen's quadratic kappa: {', '.join(pairs)}.")
    if oneself["latents"]:
        out.append(f"Of {_count(oneself['latents'], 'latent')} shown twice to a rater, {oneself['same']} got the same answer: "
                   f"{percent(oneself['share'])}.")
    return out


def percent(share: Estimate) -> str:
    """`62% [49, 73]`"""
    return f"{100 * share.value:.0f}%{_ends(100 * share.low, 100 * share.high, '.0f')}"


def points(gap: Estimate) -> str:
    """`5 points [-12, 22]`"""
    return f"{100 * gap.value:z.0f} points{_ends(100 * gap.low, 100 * gap.high, 'z.0f')}"


def number(value: Estimate, sign: str = "") -> str:
    """`0.41 [0.10, 0.72]`; `not defined` where all answers are the same."""
    if math.isnan(value.value):
        return "not defined (all answers are the same, or too few)"
    return f"{value.value:{sign}z.2f}{_ends(value.low, value.high, f'{sign}z.2f') or ' without an interval'}"


def _ends(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f" [{low:{form}}, {high:{form}}]"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
