"""Verdicts in words, for the console and the page alike. Of all that is compared, less is better."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.report.compare import judged_in
from saesweep.report.intervals import MIN_DOCUMENTS
from saesweep.report.verdicts import EQUAL

PHRASES = {"better": "is better than", "equal": f"is equal within {EQUAL:g}% to", "open": "is not told apart from",
           "none": "has no interval beside"}
SHORT = {"fvu": "FVU", "delta_loss": "delta loss"}
UNITS = {"delta_loss": " nats"}
ONE_SEED = "is on this text, for these two SAEs; another seed may turn it (seed=0,1,2)."


def amount(found: Mapping[str, Any], measure: str, sign: int = 1) -> str:
    """`4.6% [4.3, 4.9]`, or in the measure's units where a percentage says nothing; * survives Holm's procedure."""
    value, interval = parts(found, measure, sign)
    return " ".join(filter(None, (value, interval))) + "*" * found["holm"]


def parts(found: Mapping[str, Any], measure: str, sign: int = 1) -> tuple[str, str]:
    """`4.6%` and `[4.3, 4.9]`; the second empty where there is no interval."""
    if found["percent"] is not None:
        value, ends, unit = found["percent"], (found["percent_low"], found["percent_high"]), "%"
        form = "z.1f" if abs(value) >= 0.05 or found["verdict"] not in ("better", "worse") else "z.2g"
    else:
        value, ends, form, unit = found["difference"], (found["low"], found["high"]), "z.4f", UNITS.get(measure, "")
    if None in ends:
        return f"{sign * value:{form}}{unit}", ""
    low, high = sorted(sign * end for end in ends)
    return f"{sign * value:{form}}{unit}", f"[{low:{form}}, {high:{form}}]"


def note(gap: Mapping[str, Any]) -> str:
    """What was not measured where it is compared; empty where both were."""
    if gap["interpolated"]:
        return f"{gap['interpolated']} interpolated"
    if gap["percent"] is None or gap["error"] <= 0.005 * gap["value_b"]:
        return ""
    return f"L0 {gap['l0_a']:.4g} and {gap['l0_b']:.4g}, which may be {100 * gap['error'] / gap['value_b']:.1f}% of it"


def beside(mean: Mapping[str, Any], measure: str) -> str:
    """How a mean lies to the reference's: `5.3% [4.9, 5.7] higher`."""
    if mean["verdict"] in ("better", "worse"):
        return f"{amount(mean, measure, -1)} higher" if mean["verdict"] == "worse" else f"{amount(mean, measure)} lower"
    words = {"equal": f"equal within {EQUAL:g}%", "open": "not told apart", "none": "no interval"}
    return f"{words[mean['verdict']]}: {amount(mean, measure)}"


def scope(comparison: Mapping[str, Any]) -> list[str]:
    """Sentences on what all the verdicts rest on: what was varied, how many there are, and what one seed means."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for place in comparison["places"]:
        for measure, part in place["metrics"].items():
            found.setdefault(measure, []).extend(judged_in(part))
    verdicts = [one for judged in found.values() for one in judged]
    if not verdicts:
        return []
    if all(one["verdict"] == "none" for one in verdicts):
        return [f"There are no intervals, so nothing is said: they take several seeds, or {MIN_DOCUMENTS} held-out documents."]
    sentences = [_varied(found)]
    if comparison["comparisons"] > 1:
        sentences.append(f"{comparison['comparisons']} comparisons were made; * holds for all of them together (Holm).")
    one_seed = [one["one_seed"] for one in verdicts if one["verdict"] != "none"]
    if any(one_seed):
        which = "One SAE each was trained: a verdict" if all(one_seed) else "A verdict on a single seed (this .. and this ..)"
        sentences.append(f"{which} {ONE_SEED}")
    return sentences


def _varied(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """`95% intervals over 38 documents (FVU), 13 documents (delta loss).`"""
    each = {measure: dict.fromkeys(one["varied"] for one in judged if one["varied"]) for measure, judged in found.items()}
    said = {measure: " or ".join(varied) for measure, varied in each.items() if varied}
    if len(set(said.values())) == 1:
        return f"95% intervals over {next(iter(said.values()))}."
    return f"95% intervals over {', '.join(f'{varied} ({SHORT.get(measure, measure)})' for measure, varied in said.items())}."


def listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def l0s(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
