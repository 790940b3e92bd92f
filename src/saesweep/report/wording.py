"""The sentences of a comparison, for the console and the page. Of every measure, lower is better.

A block is one measure at one hook point in pareto.json.
"""
from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.report.compare import comparisons
from saesweep.report.intervals import MIN_DOCUMENTS
from saesweep.report.matching import MATCH, TOLERANCE
from saesweep.report.verdicts import EQUAL

PHRASES = {"better": "is better than", "equal": f"is equal within {EQUAL:g}% to",
           "open": "is not significantly different from", "none": "has no interval against"}
OUTCOMES = {"better": "lower", "worse": "higher", "equal": f"equal within {EQUAL:g}%", "open": "not significant",
            "none": "no interval"}
MEASURES = {"fvu": "FVU", "delta_loss": "delta loss"}
UNITS = {"delta_loss": " nats"}
POOLED = {"hook point": "the slope pooled over the hook point's curves",
          "model": "the slope pooled over the model's hook points", "prior": "the prior range of slopes"}
NOT_COMPARABLE = (f"no two architectures at one hook point have SAEs less than {100 * TOLERANCE:g}% apart in L0, or close "
                  "enough to interpolate; train several target L0s, such as sparsity=16,32,64")
ONE_SEED = "holds for these two SAEs on this text, and another seed may reverse it (seed=0,1,2)."


def imported(what: str) -> str:
    """A footnote. what: how they are shown."""
    return (f"{what} are SAEs that others have trained, measured on the same held-out tokens. Their training may be on other "
            "text and of another length (column tokens), so they are in no comparison, no mean and no front.")


def estimate(found: Mapping[str, Any], measure: str, sign: int = 1) -> str:
    """`4.6% [4.3, 4.9]`, or in the units of the measure; * if it is significant after Holm's correction."""
    return " ".join(filter(None, estimate_parts(found, measure, sign))) + "*" * found["holm"]


def estimate_parts(found: Mapping[str, Any], measure: str, sign: int = 1) -> tuple[str, str]:
    """`4.6%` and `[4.3, 4.9]`; the second is empty where there is no interval."""
    if found["percent"] is not None:
        value, ends, unit = found["percent"], (found["percent_low"], found["percent_high"]), "%"
        form = "z.1f" if abs(value) >= 0.05 or found["verdict"] not in ("better", "worse") else "z.2g"
    else:
        value, ends, form, unit = found["difference"], (found["low"], found["high"]), "z.4f", UNITS.get(measure, "")
    if None in ends:
        return f"{sign * value:{form}}{unit}", ""
    low, high = sorted(sign * end for end in ends)
    return f"{sign * value:{form}}{unit}", f"[{low:{form}}, {high:{form}}]"


def caveat(gap: Mapping[str, Any], measure: str) -> str:
    """What is interpolated, or how far apart the L0 of the two are, which slopes correct that, and within what bound.

    Empty where their L0 differ by less than 0.05%, or by less than MATCH and are corrected by their own slopes within 0.5%.
    """
    if gap["interpolated"]:
        return f"{gap['interpolated']} interpolated"
    low, high = sorted((gap["l0_a"], gap["l0_b"]))
    percent, own = gap["percent"] is not None, {gap["slope_a"], gap["slope_b"]} == {"own"}
    small = own and high / low <= 1 + MATCH and (not percent or gap["error"] <= 0.005 * gap["value_b"])
    if round(high / low, 3) == 1 or small:
        return ""
    within = f"{100 * gap['error'] / gap['value_b']:.1f}%" if percent else f"{gap['error']:.4f}{UNITS.get(measure, '')}"
    apart = f"L0 {gap['l0_a']:.4g} and {gap['l0_b']:.4g}, {100 * (high / low - 1):.1f}% apart"
    return f"{apart}, corrected by {_slopes(gap)} within {within}"


def _slopes(gap: Mapping[str, Any]) -> str:
    pooled = [POOLED[gap[f"slope_{key}"]] for key in "ab" if gap[f"slope_{key}"] != "own"]
    if len(pooled) == 1:
        return f"{gap['a' if gap['slope_a'] == 'own' else 'b']}'s own slope and {pooled[0]}"
    return pooled[0] if pooled else "their own slopes"


def relative(mean: Mapping[str, Any], measure: str) -> str:
    """A mean relative to the reference's: `5.3% [4.9, 5.7] higher`."""
    outcome, number = OUTCOMES[mean["verdict"]], estimate(mean, measure, -1 if mean["verdict"] == "worse" else 1)
    return f"{number} {outcome}" if mean["verdict"] in ("better", "worse") else f"{outcome}: {number}"


def means(measure: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    """`mean FVU over L0 16, 32, relative to topk 0.1000: gated 0.1100, 10.0% [9.0, 11.0]* higher`; of several hook points
    `mean FVU at 2 hook points, relative to topk: gated higher at 2`. Empty where there are no means."""
    blocks = [block for block in blocks if block["means"]]
    if not blocks:
        return ""
    others = [mean for block in blocks for mean in block["means"] if mean["arch"] != block["reference"]]
    name = f"mean {MEASURES.get(measure, measure)}{' of these SAEs' * any(mean['one_seed'] for mean in others)}"
    if len(blocks) > 1:
        references = join_words(sorted({block["reference"] for block in blocks}), "or")
        found = {arch: [mean for mean in others if mean["arch"] == arch] for arch in dict.fromkeys(m["arch"] for m in others)}
        parts = [f"{arch} {_counts(means)}" for arch, means in found.items()]
        return f"{name} at {len(blocks)} hook points, relative to {references}: {'; '.join(parts)}"
    reference, l0 = blocks[0]["reference"], l0s(blocks[0]["mean_over_l0"])
    values = {mean["arch"]: f"{mean['arch']} {mean['mean']:.4f}" for mean in blocks[0]["means"]}
    parts = [f"{values[mean['arch']]}, {relative(mean, measure)}" for mean in others]
    return f"{name} over L0 {l0}, relative to {values[reference]}: {'; '.join(parts)}"


def _counts(means: Sequence[Mapping[str, Any]]) -> str:
    """`lower at 1, not significant at 2`."""
    outcomes = [OUTCOMES[mean["verdict"]] for mean in means]
    return ", ".join(f"{outcome} at {outcomes.count(outcome)}" for outcome in OUTCOMES.values() if outcome in outcomes)


def not_compared(blocks: Sequence[Mapping[str, Any]]) -> str:
    """`not compared, measured on different text: a and b; a and c`; empty if all are compared."""
    pairs = dict.fromkeys(f"{a} and {b}" for block in blocks for a, b in block["on_other_text"])
    return f"not compared, measured on different text: {'; '.join(pairs)}" if pairs else ""


def scope(comparison: Mapping[str, Any]) -> list[str]:
    """Sentences about all verdicts: what the intervals are over, how many comparisons there are, what a single seed means."""
    found = [(measure, one) for place in comparison["places"] for measure, block in place["metrics"].items()
             for one in comparisons(block)]
    one_seed = [one["one_seed"] for _, one in found if one["verdict"] != "none"]
    if not one_seed:
        return [f"No intervals, so no verdicts: they need several seeds or {MIN_DOCUMENTS} held-out documents."] * bool(found)
    sentences = [f"95% intervals over {_varied(found)}."]
    if comparison["comparisons"] > 1:
        sentences.append(f"{comparison['comparisons']} comparisons; * marks those significant after Holm's correction.")
    if any(one_seed):
        which = "One seed per architecture: a verdict" if all(one_seed) else "A verdict on single seeds (this .. and this ..)"
        sentences.append(f"{which} {ONE_SEED}")
    return sentences + l0_of_targets(comparison)


def l0_of_targets(comparison: Mapping[str, Any]) -> list[str]:
    """How far the measured L0 are from their targets, and whether the documents explain it; empty if all are near.

    SAEs with the same L0 on every document are left out.
    """
    points = []
    for place in comparison["places"]:
        for curve in next(iter(place["metrics"].values()), {"curves": []})["curves"]:
            name = f"{curve['arch']} at {place['site']}.{place['layer']}"
            rows = zip(*(curve[key] for key in ("sparsity", "l0", "l0_low", "l0_high")), strict=True)
            points += [(abs(l0 / target - 1), name, target, l0, low, high)
                       for target, l0, low, high in rows if target and low is not None and low < high]
    if max(points, default=(0,))[0] <= MATCH / 2:
        return []
    off, name, target, l0, low, high = max(points)
    inside = sum(low <= target <= high for _, _, target, _, low, high in points)
    return [f"L0 is up to {100 * off:.1f}% off its target ({name}: {l0:.3g} [{low:.3g}, {high:.3g}] for {target:g}, over "
            f"documents); the interval contains the target at {inside} of {len(points)} points."]


def _varied(found: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """`38 documents (FVU), 13 documents (delta loss)`; without the measures where they agree."""
    each: dict[str, list[str]] = {}
    for measure, varied in dict.fromkeys((measure, one["varied"]) for measure, one in found if one["varied"]):
        each.setdefault(MEASURES.get(measure, measure), []).append(varied)
    texts = {measure: " or ".join(varied) for measure, varied in each.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{text} ({measure})" for measure, text in texts.items())


def join_words(words: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def l0s(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def sentence(words: str) -> str:
    """With a capital and a full stop; empty stays empty."""
    return f"{words[:1].upper()}{words[1:]}." if words else ""
