"""Every comparison in words, for the page; summaries.py has the short answers. No sentence says more than its interval.

A question of the papers has an answer per hook point: a list of sentences, each with its estimate, its 95% interval and what
that is over.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saesweep.report.wording import join_words, l0s, not_compared, sentence
from saesweep.study.comparison.catalogue import TASKS
from saesweep.study.comparison.report import blocks

MEANS = {"uniform": "mean over latents", "by_frequency": "mean over activations",
         "with_zeros": "mean over all latents, unscored ones as 0", "several_tokens": "mean over latents of several tokens"}
PHRASES = {"better": "is better than", "higher": "is higher than", "equal": "is equal within {delta:g} to",
           "open": "is not told apart from", "none": "has no interval against"}
SWAPPED = {"worse": "better", "lower": "higher"}
Changes = Mapping[str, tuple[str, str, str]]  # by key the words of an interval above 0, below 0, and of neither
CHANGES: Changes = {
    "frequent": ("they score higher than the others by {}", "they score lower than the others by {}",
                 "no difference to the others is shown, {}"),
    "per_tenfold": ("rises by {} per tenfold frequency", "falls by {} per tenfold frequency",
                    "no slope is shown, {} per tenfold frequency"),
    "per_doubling": ("rises by {} per doubling of L0", "falls by {} per doubling of L0",
                     "no slope is shown, {} per doubling of L0"),
    "controls": ("above the {control} control by {}", "below the {control} control by {}",
                 "no difference to the {control} control is shown, {}"),
}
WHICH = "Which architecture is more interpretable at the same L0?"
FREQUENT = "Are latents that fire on at least 10% of the tokens less interpretable?"
FREQUENCY = "Does the score fall with the frequency of a latent?"
L0 = "Are the latents of SAEs with lower L0 more interpretable?"
CONTROLS = "Are the latents more interpretable than those of the controls?"
USE = "Does lower FVU go with better probing and less absorption?"


def shown(place: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The primary scores, and the uniform means of a judge's, which describe."""
    every = list(blocks([place]))
    judged = [block for block in every if block["score"] in TASKS and block["mean"] == "uniform" and not block["primary"]]
    return [*(block for block in every if block["primary"]), *judged]


def shown_frequency(place: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {block["score"] for block in shown(place)}
    return [row for row in place["frequency"] if row["score"] in names]


def place_answers(report: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, list[str]]:
    """By question; only questions to which the study has something to say."""
    said, frequency = shown(place), shown_frequency(place)
    found = {
        WHICH: [one for block in said for one in _which(block, report["delta"])],
        **{question: [_change(row["words"], row[key] | {"arch": row["arch"]}, key) for row in frequency if key in row]
           for question, key in ((FREQUENT, "frequent"), (FREQUENCY, "per_tenfold"))},
        L0: [_change(title(block), row, "per_doubling") for block in said for row in block["per_doubling"]],
        CONTROLS: [_change(title(block), row, "controls") for block in said for row in block["controls"]],
        USE: [_use(row) for row in place["use"]],
    }
    return {question: answers for question, answers in found.items() if answers}


def title(block: Mapping[str, Any]) -> str:
    mean = f", {MEANS[block['mean']]}" if block["per_feature"] else ""
    return f"{block['words']}{mean}{' (descriptive)' * (not block['primary'])}"


def number(row: Mapping[str, Any], sign: int = 1) -> str:
    """`0.032 [0.010, 0.054]`."""
    text = f"{sign * row['estimate']:z.3f}"
    if row["low"] is None:
        return text
    low, high = sorted((sign * row["low"], sign * row["high"]))
    return f"{text} [{low:z.3f}, {high:z.3f}]"


def _which(block: Mapping[str, Any], delta: float) -> Iterator[str]:
    """A sentence per pair of architectures: at each L0, and in the mean."""
    for pair in dict.fromkeys((gap["a"], gap["b"]) for gap in block["gaps"]):
        rows = [(f"at L0 {row['sparsity']:g}", row) for row in block["gaps"] if (row["a"], row["b"]) == pair]
        rows += [(f"in the mean over L0 {l0s(row['over_l0'])}", row) for row in block["means"] if (row["a"], row["b"]) == pair]
        parts: dict[str, list[str]] = {}
        for where, row in rows:
            a, verdict, b = names(row)
            words = f"{a} {PHRASES[verdict].format(delta=delta)} {b}"
            parts.setdefault(words, []).append(f"{where} {amount(row, delta)}")
        said = "; ".join(f"{words} {join_words(each)}" for words, each in parts.items())
        yield f"{title(block)}: {said}{over([row for _, row in rows])}."


def names(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """`a`, a verdict of PHRASES and `b`, so that a is the better one; SAEs of one seed are `this a`."""
    a, b = (f"this {row[arch]}" if row["one_seed"] and row["verdict"] != "none" else str(row[arch]) for arch in "ab")
    swapped = SWAPPED.get(row["verdict"])
    return (b, swapped, a) if swapped else (a, row["verdict"], b)


def amount(row: Mapping[str, Any], delta: float) -> str:
    """`by 0.032 [0.010, 0.054]*`; of a verdict without a direction in brackets."""
    directed = row["verdict"] in ("better", "worse", "higher", "lower")
    sign = -1 if directed and row["estimate"] < 0 else 1
    caveats = [f"{row['interpolated']} interpolated"] if row.get("interpolated") else []
    caveats += [f"within {delta:g}"] if row["within"] and row["verdict"] != "equal" else []
    text = f"{number(row, sign=sign)}{'*' * row['holm']}"
    if not directed:
        return f"({'; '.join([text, *caveats])})"
    return f"by {text}" + (f" ({'; '.join(caveats)})" if caveats else "")


def over(rows: Sequence[Mapping[str, Any]]) -> str:
    """` (95% interval over 3 seeds, 310 to 388 features of each SAE and 85 documents)`."""
    varied = [row["varied"] for row in rows if row["varied"]]
    seeds = [max(one["seeds"], 1) for one in varied]
    parts = [_range(seeds, "seeds") if max(seeds, default=1) > 1 else "",
             _range([one[key] for one in varied for key in ("fewest", "most")], "features of each SAE"),
             _range([one["documents"] for one in varied], "documents")]
    return f" (95% interval over {join_words(known)})" if (known := [part for part in parts if part]) else ""


def _range(counts: Sequence[int], what: str) -> str:
    """Empty where all are 0."""
    if not any(counts):
        return ""
    return f"{min(counts)}{f' to {max(counts)}' * (max(counts) > min(counts))} {what}"


def whose(row: Mapping[str, Any]) -> str:
    return f"these {row['arch']}" if row["one_seed"] else str(row["arch"])


def _change(title: str, row: Mapping[str, Any], key: str) -> str:
    return f"{title}, {change(row, key, CHANGES)}{over([row])}."


def change(row: Mapping[str, Any], key: str, changes: Changes) -> str:
    """`topk: rises by 0.1`: what the interval of a slope or of a difference shows."""
    above, below, neither = changes[key]
    if row["low"] is None:
        return f"{whose(row)}: {neither.format(number(row), **row)}, without an interval"
    words = above if row["low"] > 0 else below if row["high"] < 0 else neither
    return f"{whose(row)}: {words.format(number(row, sign=-1 if words is below else 1), **row)}"


def _use(row: Mapping[str, Any]) -> str:
    """One sentence per score."""
    return f"{row['words']}, {points([row])}: {'; '.join(correlation(row))}."


def points(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{_range([row['points'] for row in rows], 'points')} (each an architecture at a target L0)"


def correlation(row: Mapping[str, Any]) -> list[str]:
    parts = [_correlation(row, "", "over all L0")]
    if "at_equal_l0_r" in row:
        parts.append(_correlation(row, "at_equal_l0_", "with the effect of L0 removed"))
    return parts


def _correlation(row: Mapping[str, Any], prefix: str, where: str) -> str:
    r, low, high = (row[f"{prefix}{key}"] for key in ("r", "low", "high"))
    words = "lower FVU goes with a {} score"
    shown = words.format("better") if low > 0 else words.format("worse") if high < 0 else "no correlation is shown"
    return f"{where} {shown}: rank correlation {r:z.2f} [{low:z.2f}, {high:z.2f}]"


def scope(report: Mapping[str, Any]) -> list[str]:
    """What all verdicts are about."""
    primary = [block for block in blocks(report["places"]) if block["primary"]]
    rows = [row for block in primary for row in [*block["gaps"], *block["means"]]]
    count = report["comparisons"]
    found = ["Rules, labels and thresholds are chosen on one half of the held-out documents, and scores are of the other half."]
    if apart := not_compared(primary):
        found.append(sentence(apart))
    if count > 1:
        names = join_words(list(dict.fromkeys(block["words"] for block in primary)))
        found.append(f"{count} comparisons of primary scores ({names}); * marks those significant after Holm's correction.")
    found.append("Slopes, controls and correlations are descriptive: their intervals are not corrected for their number.")
    if any(row["one_seed"] and row["verdict"] != "none" for row in rows):
        found.append("A verdict on SAEs of one seed (this .. and this ..) holds for these SAEs; another seed may reverse it.")
    if any(row["verdict"] == "open" for row in rows):
        found.append("Not told apart does not mean equal: the interval also contains differences that are larger than "
                     f"{report['delta']:g}, or there are too few features.")
    return found
