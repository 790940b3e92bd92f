"""The comparison of pareto.json as HTML: a summary, and per metric tables of means and of pairs. Lower is better."""

from html import escape
from typing import Any

from saesweep.report import wording
from saesweep.report.page.tables import Place, cell, data_attributes, scrolling, title
from saesweep.report.verdicts import EQUAL, swapped

Block = dict[str, Any]  # one metric at one hook point
Blocks = list[tuple[Place, Block]]  # of one metric


def summary(comparison: dict) -> str:
    """A sentence per metric on the means, and the sentences that all verdicts share."""
    blocks = {metric: [block for _, block in found] for metric, found in _by_metric(comparison).items()}
    sentences = [wording.sentence(wording.means(metric, found)) for metric, found in blocks.items()]
    sentences.append(" ".join(wording.scope(comparison)))
    sentences.append(wording.sentence(wording.not_compared([block for found in blocks.values() for block in found])))
    return "".join(f"<p>{escape(sentence, quote=False)}</p>" for sentence in sentences if sentence)


def tables(comparison: dict) -> str:
    """Per metric: the means over the shared L0, then the pairs at each L0."""
    compared = {key: blocks for key, blocks in _by_metric(comparison).items() if any(block["gaps"] for _, block in blocks)}
    if not compared:
        return f"<p>{wording.sentence(wording.NOT_COMPARABLE)}</p>"
    names = wording.join_words(list(map(_name, compared)))
    note = f'<p id="uncompared" hidden>Only {names} can be compared.</p>'
    return note + _legend(comparison) + "".join(_metric(metric, blocks) for metric, blocks in compared.items())


def _legend(comparison: dict) -> str:
    if not comparison["comparisons"]:
        return ""
    return ('<p class="legend">Brackets are the intervals. Not significant: the interval contains 0, and is not within '
            f"{EQUAL:g}%. Differences are paired by document, so one can be significant where two bands overlap.</p>")


def _by_metric(comparison: dict) -> dict[str, Blocks]:
    found: dict[str, Blocks] = {}
    for place in comparison["places"]:
        for metric, block in place["metrics"].items():
            found.setdefault(metric, []).append(((place["model"], place["site"], place["layer"]), block))
    return found


def _name(metric: str) -> str:
    return escape(wording.MEASURES.get(metric, metric))


def _metric(metric: str, blocks: Blocks) -> str:
    places = [place for place, _ in blocks]
    pairs = "".join(_pairs(metric, place, title(place, places), block) for place, block in blocks if block["gaps"])
    opened = " open" if len(blocks) <= 3 else ""
    name = _name(metric)
    return (
        f'<div data-metric="{escape(metric)}"><h3>{name[:1].upper()}{name[1:]}: lower is better</h3>'
        f"{_means(metric, blocks)}<details{opened}><summary>Pairs at each L0</summary>{pairs}</details></div>"
    )


def _means(metric: str, blocks: Blocks) -> str:
    archs = list(dict.fromkeys(mean["arch"] for _, block in blocks for mean in block["means"]))
    if not archs:
        return ""
    places = [place for place, _ in blocks]
    head = "".join(f'<th scope="col" data-arch="{escape(arch)}">{escape(arch)}</th>' for arch in archs)
    body = "".join(_mean_row(metric, place, title(place, places), block, archs) for place, block in blocks)
    caption = f"Mean {_name(metric)} over log L0, at the L0 shared by all curves of a hook point"
    return scrolling(caption, f'<th scope="col">hook point</th><th scope="col">L0</th>{head}', body)


def _mean_row(metric: str, place: Place, name: str, block: Block, archs: list[str]) -> str:
    means = {mean["arch"]: mean for mean in block["means"]}
    cells = "".join(f'<td data-arch="{escape(a)}">{_mean(means.get(a), block["reference"], metric)}</td>' for a in archs)
    l0 = wording.l0s(block["mean_over_l0"]) or "-"
    return f'<tr {data_attributes(place)}><th scope="row">{escape(name)}</th><td>{l0}</td>{cells}</tr>'


def _mean(mean: dict | None, reference: str | None, metric: str) -> str:
    if mean is None:
        return "-"
    outcome = wording.OUTCOMES.get(mean.get("verdict", ""))
    relative = "reference" if mean["arch"] == reference else _two_lines(mean, metric, after=f" {outcome}")
    return f"{cell('mean', mean['mean'])}<br>{relative}"


def _two_lines(found: dict, metric: str, before: str = "", after: str = "") -> str:
    """`topk 4.2%*` or `4.2% higher*` above `[3.6, 4.9]`; a verdict without a better one in grey above both numbers."""
    value, interval = map(escape, wording.estimate_parts(found, metric, -1 if found["verdict"] == "worse" else 1))
    if found["verdict"] not in ("better", "worse"):
        return f'<span class="undecided">{wording.OUTCOMES[found["verdict"]]}<small>{value} {interval}</small></span>'
    return f'<span>{before}{value}{after}{"*" * found["holm"]}<small>{interval}</small></span>'


def _pairs(metric: str, place: Place, name: str, block: Block) -> str:
    l0s = sorted({gap["sparsity"] for gap in block["gaps"]})
    pairs: dict[tuple[str, str], dict] = {}
    for gap in block["gaps"]:
        pairs.setdefault((gap["a"], gap["b"]), {})[gap["sparsity"]] = gap
    head = '<th scope="col">pair</th>' + "".join(f'<th scope="col">{l0:g}</th>' for l0 in l0s)
    body = "".join(
        f'<tr data-arch="{escape(a)}" data-other="{escape(b)}"><th scope="row">{escape(a)} or {escape(b)}</th>'
        + "".join(f"<td>{_gap(gaps.get(l0), metric)}</td>" for l0 in l0s) + "</tr>" for (a, b), gaps in pairs.items())
    caption = f"{escape(name)}: which has the lower {_name(metric)} at each L0, and by what share of the other's"
    return f"<div {data_attributes(place)}>{scrolling(caption, head, body)}</div>"


def _gap(gap: dict | None, metric: str) -> str:
    """`topk 4.2% [3.6, 4.9]`: the better one, and by how much it is lower than the other."""
    if gap is None:
        return "-"
    varied = f", over {gap['varied']}" if gap["varied"] else ""
    tip = escape(f"{gap['a']} {gap['value_a']:.4g}, {gap['b']} {gap['value_b']:.4g}, at L0 {gap['l0']:.4g}{varied}")
    gap = swapped(gap) if gap["verdict"] == "worse" else gap
    lines, caveat = _two_lines(gap, metric, before=f"<b>{escape(gap['a'])}</b>&nbsp;"), escape(wording.caveat(gap, metric))
    below = caveat and f'<small class="caveat">{caveat}</small>'
    return f'<span title="{tip}">{lines}{below}</span>'
