"""Which architecture is better, as words and tables, from what pareto.json holds. Of all metrics compared, lower is better."""

from html import escape

from saesweep.report import wording
from saesweep.report.page.words import Place, at, cell, scrolling, title
from saesweep.report.verdicts import EQUAL, turned

SAID = {"better": "lower", "worse": "higher", "equal": "equal", "open": "not told apart", "none": "no interval"}
Blocks = list[tuple[Place, dict]]  # of one metric


def answer(comparison: dict) -> str:
    """A sentence per metric, from the means over the L0 that all curves of a place have, and what all verdicts rest on."""
    said = [_said(metric, _blocks(comparison, metric)) for metric in _metrics(comparison)]
    sentences = [*said, " ".join(wording.scope(comparison)), _apart(comparison)]
    return "".join(f"<p>{sentence}</p>" for sentence in sentences if sentence)


def _apart(comparison: dict) -> str:
    blocks = [block for place in comparison["places"] for block in place["metrics"].values()]
    pairs = dict.fromkeys(f"{a} and {b}" for block in blocks for a, b in block["on_other_text"])
    return f"Measured on different text, and not compared: {escape(wording.listed(list(pairs)))}." if pairs else ""


def better(comparison: dict) -> str:
    """Per metric: the means over the shared L0, then pair by pair at each sparsity."""
    metrics = [metric for metric in _metrics(comparison) if any(b["gaps"] for _, b in _blocks(comparison, metric))]
    if not metrics:
        return ("<p>There is nothing to compare: that takes two architectures at one place with SAEs within 5% of one L0, or "
                "near enough around it.</p>")
    note = f'<p id="uncompared" hidden>Only {wording.listed(list(map(_short, metrics)))} can be compared here.</p>'
    return note + _legend(comparison) + "".join(_metric(metric, _blocks(comparison, metric)) for metric in metrics)


def _legend(comparison: dict) -> str:
    """What the words of the tables mean, where there are intervals."""
    if not comparison["comparisons"]:
        return ""
    star = ", * as above" * (comparison["comparisons"] > 1)
    return (f'<p class="legend">Brackets are the intervals{star}. Equal: the interval lies within {EQUAL:g}%. Not told '
            "apart: it holds 0, and more. Both of a pair read the same documents: a difference can be sure where the bands "
            "above overlap.</p>")


def _metrics(comparison: dict) -> list[str]:
    return list(dict.fromkeys(metric for place in comparison["places"] for metric in place["metrics"]))


def _blocks(comparison: dict, metric: str) -> Blocks:
    places = [((p["model"], p["site"], p["layer"]), p["metrics"].get(metric)) for p in comparison["places"]]
    return [(place, block) for place, block in places if block]


def _short(metric: str) -> str:
    return wording.SHORT.get(metric, escape(metric))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


# the sentence


def _said(metric: str, blocks: Blocks) -> str:
    """`FVU over L0 16, 32, 64, beside topk: jumprelu equal; gated 5.3% higher [4.9, 5.7].` Several places are counted."""
    found: dict[str, list[dict]] = {}
    for _, block in blocks:
        for mean in block["means"]:
            if mean["arch"] != block["reference"]:
                found.setdefault(mean["arch"], []).append(mean)
    references = {block["reference"] for _, block in blocks if block["means"]}
    if not found:
        return ""
    blocks = [(place, block) for place, block in blocks if block["means"]]
    alone = len(blocks) == 1
    parts = [f"<b>{escape(arch)}</b> {_beside(means[0], metric) if alone else _tally(means)}" for arch, means in found.items()]
    where = f"over L0 {wording.l0s(blocks[0][1]['mean_over_l0'])}" if alone else f"at {len(blocks)} places"
    return f"{_capital(_short(metric))} {where}, beside {escape(' or '.join(sorted(references)))}: {'; '.join(parts)}."


def _tally(means: list[dict]) -> str:
    verdicts = [SAID[mean["verdict"]] for mean in means]
    return ", ".join(f"{word} at {verdicts.count(word)}" for word in SAID.values() if word in verdicts)


def _beside(mean: dict, metric: str) -> str:
    """`5.3% [4.9, 5.7] higher`: of the reference's mean."""
    return f'<span class="{_style(mean)}">{escape(wording.beside(mean, metric))}</span>'


def _style(found: dict) -> str:
    return "sure" if found["verdict"] in ("better", "worse") else "level"


# the tables


def _metric(metric: str, blocks: Blocks) -> str:
    places = [place for place, _ in blocks]
    pairs = "".join(_pairs(metric, place, title(place, places), block) for place, block in blocks if block["gaps"])
    opened = " open" if len(blocks) <= 3 else ""
    return (
        f'<div data-metric="{escape(metric)}"><h3>{_capital(_short(metric))}: lower is better</h3>'
        f"{_means(metric, blocks)}<details{opened}><summary>Pair by pair at each sparsity</summary>{pairs}</details></div>"
    )


def _means(metric: str, blocks: Blocks) -> str:
    archs = list(dict.fromkeys(mean["arch"] for _, block in blocks for mean in block["means"]))
    if not archs:
        return ""
    places = [place for place, _ in blocks]
    head = "".join(f'<th scope="col" data-arch="{escape(arch)}">{escape(arch)}</th>' for arch in archs)
    body = "".join(_mean_row(metric, place, title(place, places), block, archs) for place, block in blocks)
    caption = f"Mean {_short(metric)} over log L0, at the L0 that all curves of a place have"
    return scrolling(caption, f'<th scope="col">place</th><th scope="col">L0</th>{head}', body)


def _mean_row(metric: str, place: Place, name: str, block: dict, archs: list[str]) -> str:
    means = {mean["arch"]: mean for mean in block["means"]}
    cells = "".join(f'<td data-arch="{escape(a)}">{_mean(means.get(a), block["reference"], metric)}</td>' for a in archs)
    l0 = wording.l0s(block["mean_over_l0"]) or "-"
    return f'<tr {at(place)}><th scope="row">{escape(name)}</th><td>{l0}</td>{cells}</tr>'


def _mean(mean: dict | None, reference: str | None, metric: str) -> str:
    if mean is None:
        return "-"
    beside = "reference" if mean["arch"] == reference else _two_lines(mean, metric, after=f" {SAID[mean['verdict']]}")
    return f"{cell('mean', mean['mean'])}<br>{beside}"


def _two_lines(found: dict, metric: str, before: str = "", after: str = "") -> str:
    """`topk 4.2%*` or `4.2% higher*` above `[3.6, 4.9]`; a verdict that leaves both open in grey, above its numbers."""
    value, interval = map(escape, wording.parts(found, metric, -1 if found["verdict"] == "worse" else 1))
    if _style(found) == "level":
        return f'<span class="level">{SAID[found["verdict"]]}<small>{value} {interval}</small></span>'
    return f'<span>{before}{value}{after}{"*" * found["holm"]}<small>{interval}</small></span>'


def _pairs(metric: str, place: Place, name: str, block: dict) -> str:
    sparsities = sorted({gap["sparsity"] for gap in block["gaps"]})
    pairs: dict[tuple[str, str], dict] = {}
    for gap in block["gaps"]:
        pairs.setdefault((gap["a"], gap["b"]), {})[gap["sparsity"]] = gap
    head = '<th scope="col">pair</th>' + "".join(f'<th scope="col">{sparsity:g}</th>' for sparsity in sparsities)
    body = "".join(_pair(metric, *pair, [gaps.get(sparsity) for sparsity in sparsities]) for pair, gaps in pairs.items())
    caption = f"{escape(name)}: which has the lower {_short(metric)}, and by how much of the other's, at each sparsity"
    return f"<div {at(place)}>{scrolling(caption, head, body)}</div>"


def _pair(metric: str, a: str, b: str, gaps: list[dict | None]) -> str:
    a, b = escape(a), escape(b)
    cells = "".join(f"<td>{_gap(gap, metric)}</td>" for gap in gaps)
    return f'<tr data-arch="{a}" data-other="{b}"><th scope="row">{a} or {b}</th>{cells}</tr>'


def _gap(gap: dict | None, metric: str) -> str:
    """`topk 4.2% [3.6, 4.9]`: the better one, and by how much it is lower than the other."""
    if gap is None:
        return "-"
    varied = f", over {gap['varied']}" if gap["varied"] else ""
    tip = escape(f"{gap['a']} {gap['value_a']:.4g}, {gap['b']} {gap['value_b']:.4g}, at L0 {gap['l0']:.4g}{varied}")
    gap = turned(gap) if gap["verdict"] == "worse" else gap
    said, more = _two_lines(gap, metric, before=f"<b>{escape(gap['a'])}</b>&nbsp;"), escape(wording.note(gap))
    return f'<span title="{tip}">{said}{more and f"<small>{more}</small>"}</span>'
