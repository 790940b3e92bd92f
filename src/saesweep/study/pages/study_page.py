"""study.html: the comparison of the architectures in words, figures and tables; one offline file without a script."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from saesweep.report.style import Style, arch_styles
from saesweep.storage import study_tables
from saesweep.study.comparison import sentences, summaries
from saesweep.study.pages import curves, frequency
from saesweep.study.pages.axes import colours, legend
from saesweep.study.pages.facts import number
from saesweep.study.pages.template import fill, link, row, table

STYLES = ("common.css", "study.css")
Report = Mapping[str, Any]  # the content of study.json
OF_CURVES = ("Bands and bars: 95% intervals, over what the answers below say. Feature splits are counted on the half of the "
             "text from which all is chosen: they have an interval over seeds alone. A mark leads to the latents of its SAE.")
OF_FREQUENCY = ("A dot is a latent; a mark is the mean of half a decade of frequency with its 95% interval over latents, where "
                "there are three or more.")
OTHERS = "Other scores, which describe and are not corrected for their number"
VERDICTS = ("a", "b", "L0", "value of a", "value of b", "difference", "low", "high", "verdict")


def html(
    report: Report, summary: pd.DataFrame, scores: pd.DataFrame, folders: Mapping[str, str], name: str, command: str
) -> str:
    """scores: rows of scores.csv of the trained SAEs. folders: of the latents' pages, by path of the SAE."""
    archs = dict.fromkeys(curve["arch"] for place in report["places"] for block in place["scores"] for curve in block["curves"])
    styles = arch_styles(archs)
    places = "".join(_place(report, place, summary, scores, folders, styles) for place in report["places"])
    scope = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences.scope(report))
    count = f"{scores['path'].nunique()} SAEs, of which {len(scores):,} latents are scored."
    return fill("study.html", STYLES, None, f"{name}: interpretability", more_css=colours(styles),
                heading=f"{escape(name)}: interpretability", scope=scope, count=count,
                places=places or "<p>No SAE has a score.</p>", command=escape(command),
                saes=saes_table(summary, folders, list(report["primary"])))


def _place(
    report: Report, place: Mapping[str, Any], summary: pd.DataFrame, scores: pd.DataFrame, folders: Mapping[str, str],
    styles: Mapping[str, Style],
) -> str:
    """One hook point; its name is said where there are several."""
    mine = summary.loc[[_at(path, place) for path in summary["path"]]]
    where = escape(" at {model}, {site}, layer {layer}".format(**place)) if len(report["places"]) > 1 else ""
    kinds = [kind for kind in curves.DASHES if kind in set(mine["control"])]
    by_frequency = "".join(frequency.figure(scores.loc[scores["path"].isin(mine["path"])], name, styles)
                           for name in report["primary"] if name in scores)
    figures = _figures(place, mine, folders, styles, primary=True)
    if others := _figures(place, mine, folders, styles, primary=False):
        figures += f"<details><summary>{OTHERS}</summary>{others}</details>"
    parts = {
        "Scores against L0": f"{legend(styles, {kind: curves.DASHES[kind] for kind in kinds})}<p>{OF_CURVES}</p>{figures}",
        "In words": _answers(report, place),
        "Scores by frequency": by_frequency and f'<p>{OF_FREQUENCY}</p><div class="figures">{by_frequency}</div>',
        "Differences at the same L0": "".join(_verdicts(block) for block in place["scores"] if block["primary"]),
    }
    return "".join(f"<section><h2>{title}{where}</h2>{content}</section>" for title, content in parts.items() if content)


def _figures(
    place: Mapping[str, Any], summary: pd.DataFrame, folders: Mapping[str, str], styles: Mapping[str, Style], primary: bool
) -> str:
    """The primary scores, or the uniform means of the others."""
    links = _links(summary, folders)
    blocks = [block for block in place["scores"] if block["primary"] == primary and (primary or block["mean"] == "uniform")]
    if not primary:  # the other means of primary scores are in the table of SAEs
        shown = {block["score"] for block in place["scores"] if block["primary"]}
        blocks = [block for block in blocks if block["score"] not in shown]
    figures = "".join(curves.figure(block, curves.controls(summary, block["score"], block["mean"]), styles, links)
                      for block in blocks)
    return f'<div class="figures">{figures}</div>' if figures else ""


def _answers(report: Report, place: Mapping[str, Any]) -> str:
    """The questions of the papers, each with a line per score, and with every sentence; all but the first are folded."""
    every, found = sentences.place_answers(report, place), []
    for question, short in summaries.place_answers(report, place).items():
        said, more = _list(short), every[question]
        if len(more) > len(short):
            said += f"<details><summary>All {len(more)} sentences</summary>{_list(more)}</details>"
        found.append(f"<details{' open' * (not found)}><summary>{escape(question)}</summary>{said}</details>")
    return "".join(found)


def _list(answers: Sequence[str]) -> str:
    return f'<ul class="answers">{"".join(f"<li>{escape(one)}</li>" for one in answers)}</ul>'


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
    return table(curves.title(block), VERDICTS, (_verdict(*one) for one in rows))


def _verdict(where: str, of: Mapping[str, Any]) -> str:
    words = {"open": "not told apart", "none": "no interval", "equal": "equal"}.get(of["verdict"], f"a is {of['verdict']}")
    numbers = (number(of[key]) for key in ("value_a", "value_b", "estimate", "low", "high"))
    return row(escape(of["a"]), [of["b"], where, *numbers, words + "*" * bool(of["holm"])])


def saes_table(summary: pd.DataFrame, folders: Mapping[str, str], primary: Sequence[str]) -> str:
    """A row per SAE and primary score."""
    columns = [*study_tables.MEANS, "low", "high", *study_tables.OVER, *study_tables.SHARES, "insufficient", "failed"]
    rows = summary.loc[summary["control"].isna() & summary["score"].isin(primary)]
    head = ("SAE", "score", *(_words(key) for key in columns))
    return table("Primary scores of each SAE", head, (_sae(one, columns, folders) for one in rows.to_dict("records")))


def _words(column: str) -> str:
    return {**sentences.MEANS, "baseline": "control"}.get(column, column.replace("_", " "))


def _sae(of: Mapping[Any, Any], columns: Sequence[str], folders: Mapping[str, str]) -> str:
    words = str(of["path"])
    head = link(f"{folders[words]}/index.html", words) if words in folders else escape(words)
    return row(head, [str(of["score"]), *(number(of[key]) for key in columns)])
