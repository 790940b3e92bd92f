"""study.html: the comparison of the architectures in words, figures and tables; one offline file without a script."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from saesweep.report.page.tables import scrolling
from saesweep.report.style import Style, arch_styles
from saesweep.storage import study_tables
from saesweep.study.comparison import sentences
from saesweep.study.pages import curves, frequency
from saesweep.study.pages.axes import colours, legend
from saesweep.study.pages.facts import number
from saesweep.study.pages.template import fill, link

STYLES = ("common.css", "study.css")
Report = Mapping[str, Any]  # the content of study.json
VERDICTS = ("a", "b", "L0", "value of a", "value of b", "difference", "low", "high", "verdict")


def html(
    report: Report, summary: pd.DataFrame, scores: pd.DataFrame, folders: Mapping[str, str], name: str, command: str
) -> str:
    """scores: rows of scores.csv of the trained SAEs. folders: of the latents' pages, by path of the SAE."""
    archs = dict.fromkeys(curve["arch"] for place in report["places"] for block in place["scores"] for curve in block["curves"])
    styles = arch_styles(archs)
    places = "".join(_place(report, place, summary, scores, folders, styles) for place in report["places"])
    scope = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences.scope(report))
    return fill("study.html", STYLES, "study.js", f"{name}: interpretability", heading=f"{escape(name)}: interpretability",
                colours=colours(styles), scope=scope, places=places or "<p>No SAE has a score.</p>",
                saes=saes_table(summary, folders, list(report["primary"])), command=escape(command))


def _place(
    report: Report, place: Mapping[str, Any], summary: pd.DataFrame, scores: pd.DataFrame, folders: Mapping[str, str],
    styles: Mapping[str, Style],
) -> str:
    paths = [path for path in dict.fromkeys(summary["path"]) if _at(path, place)]
    links = _links(summary.loc[summary["path"].isin(paths)], folders)
    several = len(report["places"]) > 1
    heading = f"<h2>{escape('{model}, {site}, layer {layer}'.format(**place))}</h2>" if several else ""
    figures = {primary: "".join(
        curves.figure(block, curves.controls(summary, paths, block["score"], block["mean"]), styles, links)
        for block in place["scores"] if block["primary"] == primary and (primary or block["mean"] == "uniform"))
        for primary in (True, False)}
    mine = scores.loc[scores["path"].isin(paths)]
    by_frequency = "".join(frequency.figure(mine, name, styles) for name in report["primary"] if name in mine)
    kinds = [kind for kind in curves.DASHES if kind in set(summary.loc[summary["path"].isin(paths), "control"])]
    differences = "".join(_verdicts(block) for block in place["scores"] if block["primary"])
    return (
        f"<section>{heading}{_answers(report, place)}</section>"
        f"<section><h2>Scores against L0</h2>{legend(styles, {kind: curves.DASHES[kind] for kind in kinds})}"
        f"<p>Bands and bars: 95% intervals. A mark leads to the latents of its SAE.</p>"
        f'<div class="figures">{figures[True]}</div>'
        + (f'<details><summary>Other scores, which describe</summary><div class="figures">{figures[False]}</div></details>'
           if figures[False] else "")
        + "</section>"
        + (f"<section><h2>Scores by frequency</h2><p>A dot is a latent; a mark is the mean of half a decade, with its 95% "
           f'interval over latents.</p><div class="figures">{by_frequency}</div></section>' if by_frequency else "")
        + f"<section><h2>Differences at the same L0</h2>{differences}</section>"
    )


def _answers(report: Report, place: Mapping[str, Any]) -> str:
    """The questions of the papers, each with its sentences."""
    return "".join(
        f'<h3>{escape(question)}</h3><ul class="answers">{"".join(f"<li>{escape(one)}</li>" for one in said)}</ul>'
        for question, said in sentences.place_answers(report, place).items())


def _at(path: str, place: Mapping[str, Any]) -> bool:
    """Whether an SAE is at this hook point: paths end with model/site.layer/arch/sparsity."""
    parts = PurePosixPath(path).parts
    return parts[-4:-2] == (str(place["model"]), f"{place['site']}.{place['layer']}")


def _links(summary: pd.DataFrame, folders: Mapping[str, str]) -> dict[tuple[str, float], str]:
    """By architecture and target L0 the index of its SAE's latents, where there is one SAE."""
    found: dict[tuple[str, float], set[str]] = {}
    for path, arch, sparsity in summary.loc[summary["control"].isna(), ["path", "arch", "sparsity"]].to_numpy(object).tolist():
        if path in folders:
            found.setdefault((arch, sparsity), set()).add(folders[path])
    return {key: f"{next(iter(pages))}/index.html" for key, pages in found.items() if len(pages) == 1}


def _verdicts(block: Mapping[str, Any]) -> str:
    """Each comparison of two architectures."""
    rows = [(f"{row['sparsity']:g}" + (f" ({row['interpolated']} interpolated)" if row["interpolated"] else ""), row)
            for row in block["gaps"]] + [("mean", row) for row in block["means"]]
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{one}</th>' for one in VERDICTS)
    return scrolling(escape(curves.title(block)), head, "".join(_verdict(where, row) for where, row in rows))


def _verdict(where: str, row: Mapping[str, Any]) -> str:
    words = {"open": "not told apart", "none": "no interval", "equal": "equal"}.get(row["verdict"], f"a is {row['verdict']}")
    cells = [row["b"], where, *(number(row[key]) for key in ("value_a", "value_b", "estimate", "low", "high")),
             words + "*" * bool(row["holm"])]
    return f'<tr><th scope="row">{escape(row["a"])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def saes_table(summary: pd.DataFrame, folders: Mapping[str, str], primary: Sequence[str]) -> str:
    """A row per SAE and primary score."""
    columns = [*study_tables.MEANS, "low", "high", "baseline", *study_tables.SHARES, "insufficient"]
    rows = summary.loc[summary["control"].isna() & summary["score"].isin(primary)]
    body = "".join(_sae(row, columns, folders) for row in rows.to_dict("records"))
    names = ("SAE", "score", *(_words(key) for key in columns))
    return scrolling("Primary scores of each SAE", "".join(f'<th scope="col">{escape(one)}</th>' for one in names), body)


def _words(column: str) -> str:
    return {**sentences.MEANS, "baseline": "control"}.get(column, column)


def _sae(row: Mapping[Any, Any], columns: Sequence[str], folders: Mapping[str, str]) -> str:
    words = str(row["path"])
    head = link(f"{folders[words]}/index.html", words) if words in folders else escape(words)
    cells = [str(row["score"]), *(number(row[key]) for key in columns)]
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
