"""The comparison in words, for the console and the page. No sentence says more than its interval.

A question of the papers has an answer per hook point: a list of sentences, each with its estimate, its 95% interval and what
that is over.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saesweep.report.wording import join_words, l0s
from saesweep.study.comparison.report import blocks

MEANS = {"uniform": "mean over latents", "by_frequency": "mean over activations",
         "with_zeros": "mean over all latents, unscored ones as 0"}
PHRASES = {"better": "is better than", "higher": "is higher than", "equal": "is equal within {delta:g} to",
           "open": "is not told apart from", "none": "has no interval against"}
SWAPPED = {"worse": "better", "lower": "higher"}
CHANGES = {  # an interval above 0, below 0, neither
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
FREQUENT = "Are latents that fire on 10% of the tokens or more less interpretable?"
FREQUENCY = "Does the score fall with the frequency of a latent?"
L0 = "Are the latents of SAEs with lower L0 more interpretable?"
CONTROLS = "Are the latents more interpretable than those of the controls?"
USE = "Does lower FVU go with better probing and less absorption?"


def lines(report: Mapping[str, Any]) -> list[str]:
    """For the console."""
    found = []
    for place in report["places"]:
        found.append(f"{place['model']} {place['site']}.{place['layer']}")
        for question, answers in place_answers(report, place).items():
            found += [f"  {question}", *(f"    {answer}" for answer in answers)]
    return [*found, *scope(report)] if found else []


def place_answers(report: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, list[str]]:
    """By question; only questions to which the study has something to say."""
    primary = [block for block in blocks([place]) if block["primary"]]
    shown = {block["score"] for block in primary}
    frequency = [row for row in place["frequency"] if row["score"] in shown]
    found = {
        WHICH: [sentence for block in primary for sentence in _which(block, report["delta"])],
        FREQUENT: [_change(row["words"], row["arch"], row["frequent"], "frequent") for row in frequency if "frequent" in row],
        FREQUENCY: [_change(row["words"], row["arch"], row["per_tenfold"], "per_tenfold") for row in frequency
                    if "per_tenfold" in row],
        L0: [_change(_title(block), row["arch"], row, "per_doubling") for block in primary for row in block["per_doubling"]],
        CONTROLS: [_change(_title(block), row["arch"], row, "controls") for block in primary for row in block["controls"]],
        USE: [_use(row) for row in place["use"]],
    }
    return {question: answers for question, answers in found.items() if answers}


def _title(block: Mapping[str, Any]) -> str:
    return f"{block['words']}, {MEANS[block['mean']]}" if block["per_feature"] else block["words"]


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
            a, b = (f"this {arch}" if row["one_seed"] and row["verdict"] != "none" else arch for arch in pair)
            a, b = (b, a) if row["verdict"] in SWAPPED else (a, b)
            verdict: str = SWAPPED.get(row["verdict"]) or row["verdict"]
            words = f"{a} {PHRASES[verdict].format(delta=delta)} {b}"
            parts.setdefault(words, []).append(f"{where} {_amount(row, delta)}")
        said = "; ".join(f"{words} {join_words(each)}" for words, each in parts.items())
        yield f"{_title(block)}: {said}{_over([row for _, row in rows])}."


def _amount(row: Mapping[str, Any], delta: float) -> str:
    """`by 0.032 [0.010, 0.054]*`; of a verdict without a direction in brackets."""
    directed = row["verdict"] in ("better", "worse", "higher", "lower")
    sign = -1 if directed and row["estimate"] < 0 else 1
    caveats = [f"{row['interpolated']} interpolated"] if row.get("interpolated") else []
    caveats += [f"within {delta:g}"] if row["within"] and row["verdict"] != "equal" else []
    text = f"{number(row, sign=sign)}{'*' * row['holm']}"
    if not directed:
        return f"({'; '.join([text, *caveats])})"
    return f"by {text}" + (f" ({'; '.join(caveats)})" if caveats else "")


def _over(rows: Sequence[Mapping[str, Any]]) -> str:
    """` (95% intervals over 3 seeds and 85 documents)`."""
    varied = list(dict.fromkeys(row["varied"] for row in rows if row["varied"]))
    return f" (95% interval over {' or '.join(varied)})" if varied else ""


def _change(title: str, arch: str, row: Mapping[str, Any], key: str) -> str:
    """What the interval of a slope or of a difference shows. key: of CHANGES."""
    shown = row["low"] is not None and not row["low"] <= 0 <= row["high"]
    below = shown and row["high"] < 0
    words = CHANGES[key][(1 if below else 0) if shown else 2].format(number(row, sign=-1 if below else 1), **row)
    whose = f"these {arch}" if row["one_seed"] else arch
    return f"{title}, {whose}: {words}{', without an interval' * (row['low'] is None)}{_over([row])}."


def _use(row: Mapping[str, Any]) -> str:
    """One sentence per score."""
    parts = [_correlation(row, "", "over all SAEs")]
    if "at_equal_l0_r" in row:
        parts.append(_correlation(row, "at_equal_l0_", "with L0 taken out"))
    return f"{row['words']}, {row['points']} points: {'; '.join(parts)}."


def _correlation(row: Mapping[str, Any], prefix: str, where: str) -> str:
    r, low, high = (row[f"{prefix}{key}"] for key in ("r", "low", "high"))
    shown = "lower FVU goes with better" if low > 0 else "lower FVU goes with worse" if high < 0 else "no correlation is shown"
    return f"{where} {shown}: rank correlation {r:z.2f} [{low:z.2f}, {high:z.2f}]"


def scope(report: Mapping[str, Any]) -> list[str]:
    """What all verdicts are about."""
    rows = [row for block in blocks(report["places"]) if block["primary"] for row in [*block["gaps"], *block["means"]]]
    count = report["comparisons"]
    found = ["Rules, labels and thresholds are chosen on one half of the held-out documents, and scores are of the other half."]
    if count > 1:
        found.append(f"{count} comparisons of primary scores; * marks those significant after Holm's correction.")
    found.append("Slopes, controls and correlations are descriptive: their intervals are not corrected for their number.")
    if any(row["one_seed"] and row["verdict"] != "none" for row in rows):
        found.append("A verdict on SAEs of one seed (this .. and this ..) holds for these SAEs; another seed may reverse it.")
    if any(row["verdict"] == "open" for row in rows):
        found.append("Not told apart does not mean equal: the interval also contains differences that are larger than "
                     f"{report['delta']:g}, or there are too few features.")
    return found
