"""Which architecture is better, as words and tables, from what pareto.json holds. Of all metrics compared, lower is better."""

from html import escape

from saesweep.compare import turned, verdict
from saesweep.page.words import Place, at, cell, scrolling, title

SHORT = {"fvu": "FVU", "delta_loss": "delta loss"}
Blocks = list[tuple[Place, dict]]  # of one metric


def answer(comparison: dict) -> str:
    """A sentence per metric, from the means over the range of L0 that all curves of a place cover."""
    said = [_said(metric, _blocks(comparison, metric)) for metric in _metrics(comparison)]
    return "".join(f"<p>{sentence}</p>" for sentence in said if sentence)


def better(comparison: dict) -> str:
    """Per metric: the means over the shared range of L0, then pair by pair at each sparsity."""
    metrics = [metric for metric in _metrics(comparison) if any(b["gaps"] for _, b in _blocks(comparison, metric))]
    if not metrics:
        return "<p>There is nothing to compare: that takes two architectures at one place whose curves share an L0.</p>"
    note = f'<p id="uncompared" hidden>Only {_listed(list(map(_short, metrics)))} can be compared here.</p>'
    return note + "".join(_metric(metric, _blocks(comparison, metric)) for metric in metrics)


def _metrics(comparison: dict) -> list[str]:
    return list(dict.fromkeys(metric for place in comparison["places"] for metric in place["metrics"]))


def _blocks(comparison: dict, metric: str) -> Blocks:
    places = [((p["model"], p["site"], p["layer"]), p["metrics"].get(metric)) for p in comparison["places"]]
    return [(place, block) for place, block in places if block]


def _short(metric: str) -> str:
    return SHORT.get(metric, escape(metric))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# the sentence


def _said(metric: str, blocks: Blocks) -> str:
    """`FVU over L0 16 to 64, against topk: jumprelu level; gated 5.3% higher [4.9, 5.7].` Several places are counted."""
    found: dict[str, list[dict]] = {}
    for _, block in blocks:
        for area in block["areas"]:
            if area["arch"] != block["reference"] and area["percent"] is not None:
                found.setdefault(area["arch"], []).append(area)
    references = {block["reference"] for _, block in blocks}
    if not found or len(references) > 1:
        return ""
    alone = len(blocks) == 1
    parts = [f"<b>{escape(arch)}</b> {_against(areas[0]) if alone else _tally(areas)}" for arch, areas in found.items()]
    where = f"over L0 {_range(blocks[0][1])}" if alone else f"at {len(blocks)} places"
    return f"{_capital(_short(metric))} {where}, against {escape(references.pop())}: {'; '.join(parts)}."


def _tally(areas: list[dict]) -> str:
    verdicts = [_verdict(area) for area in areas]
    return ", ".join(f"{word} at {verdicts.count(word)}" for word in ("lower", "level", "higher") if word in verdicts)


def _verdict(area: dict) -> str:
    return {"better": "lower", "level": "level", "worse": "higher"}[verdict(area)]


def _against(area: dict) -> str:
    """`5.3% higher [4.9, 5.7]`: of the reference's mean."""
    word = _verdict(area)
    if area["low"] is None and abs(area["percent"]) < 0.05:
        return "equal"
    sign = -1 if word == "higher" else 1
    ends = None if area["low"] is None else sorted((sign * area["low"], sign * area["high"]))
    if word == "level":
        return f'<span class="level">level{_interval(ends)}</span>'
    return f"{abs(area['percent']):.1f}%&nbsp;{word}{_interval(ends)}"


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f" <small>[{ends[0]:z.1f}, {ends[1]:z.1f}]</small>"


def _range(block: dict) -> str:
    return "{:.3g} to {:.3g}".format(*block["range"]) if block["range"] else "-"


# the tables


def _metric(metric: str, blocks: Blocks) -> str:
    places = [place for place, _ in blocks]
    pairs = "".join(_pairs(metric, place, title(place, places), block) for place, block in blocks if block["gaps"])
    opened = " open" if len(blocks) <= 3 else ""
    return (
        f'<div data-metric="{escape(metric)}"><h3>{_capital(_short(metric))}: lower is better</h3><p>{_sources(blocks)}</p>'
        f"{_areas(metric, blocks)}<details{opened}><summary>Pair by pair at each sparsity</summary>{pairs}</details></div>"
    )


def _sources(blocks: Blocks) -> str:
    """Where the intervals come from, in words."""
    gaps = [gap for _, block in blocks for gap in block["gaps"]]
    sources = list(dict.fromkeys(gap["interval"] for gap in gaps if gap["interval"]))
    if not sources:
        return "There are no intervals here: one run alone does not show how much its number would vary."
    alone = " Where there are no brackets, the spread is not known." if any(not gap["interval"] for gap in gaps) else ""
    shared = " Both of a pair read the same documents: a gap can be sure where the bands above overlap."
    paired = shared if any("documents" in source for source in sources) else ""
    return f"Brackets are 95% intervals, from {escape(_listed(sources))}. Level: the interval holds 0.{paired}{alone}"


def _areas(metric: str, blocks: Blocks) -> str:
    archs = list(dict.fromkeys(area["arch"] for _, block in blocks for area in block["areas"]))
    if not archs:
        return ""
    places = [place for place, _ in blocks]
    head = "".join(f'<th scope="col" data-arch="{escape(arch)}">{escape(arch)}</th>' for arch in archs)
    body = "".join(_area_row(place, title(place, places), block, archs) for place, block in blocks)
    caption = f"Mean {_short(metric)} over log L0, in the range that all curves of a place cover"
    return scrolling(caption, f'<th scope="col">place</th><th scope="col">L0</th>{head}', body)


def _area_row(place: Place, name: str, block: dict, archs: list[str]) -> str:
    areas = {area["arch"]: area for area in block["areas"]}
    cells = "".join(f'<td data-arch="{escape(a)}">{_area(areas.get(a), a == block["reference"])}</td>' for a in archs)
    return f'<tr {at(place)}><th scope="row">{escape(name)}</th><td>{_range(block)}</td>{cells}</tr>'


def _area(area: dict | None, reference: bool) -> str:
    if area is None:
        return "-"
    against = "reference" if reference else _against(area) if area["percent"] is not None else ""
    return f"{cell('mean', area['mean'])}<br>{against}"


def _pairs(metric: str, place: Place, name: str, block: dict) -> str:
    sparsities = sorted({gap["sparsity"] for gap in block["gaps"]})
    pairs: dict[tuple[str, str], dict] = {}
    for gap in block["gaps"]:
        pairs.setdefault((gap["a"], gap["b"]), {})[gap["sparsity"]] = gap
    head = '<th scope="col">pair</th>' + "".join(f'<th scope="col">{sparsity:g}</th>' for sparsity in sparsities)
    body = "".join(_pair(a, b, [gaps.get(sparsity) for sparsity in sparsities]) for (a, b), gaps in pairs.items())
    caption = f"{escape(name)}: which has the lower {_short(metric)}, and by how much of the other's, at each sparsity"
    return f"<div {at(place)}>{scrolling(caption, head, body)}</div>"


def _pair(a: str, b: str, gaps: list[dict | None]) -> str:
    a, b = escape(a), escape(b)
    cells = "".join(f"<td>{_gap(gap)}</td>" for gap in gaps)
    return f'<tr data-arch="{a}" data-other="{b}"><th scope="row">{a} or {b}</th>{cells}</tr>'


def _gap(gap: dict | None) -> str:
    """`topk 4.2% [3.6, 4.9]`: the better one, and by how much it is lower than the other."""
    if gap is None or gap["percent"] is None:
        return "-"
    tip = escape(f"{gap['a']} {gap['value_a']:.4g}, {gap['b']} {gap['value_b']:.4g}, at L0 {gap['l0']:.4g}")
    gap = turned(gap) if verdict(gap) == "worse" else gap
    ends = None if gap["low"] is None else [gap["low"], gap["high"]]
    if ends and verdict(gap) == "level":
        return f'<span class="level" title="{tip}">level{_interval(ends)}</span>'
    if ends is None and abs(gap["percent"]) < 0.05:
        return f'<span class="level" title="{tip}">equal</span>'
    return f'<span title="{tip}"><b>{escape(gap["a"])}</b>&nbsp;{gap["percent"]:.1f}%{_interval(ends)}</span>'
