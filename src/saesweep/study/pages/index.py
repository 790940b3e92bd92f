"""The tables of latents: of each SAE, and of all. They can be read without a script; index.js finds and sorts their rows."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from saesweep.report.page.tables import scrolling
from saesweep.storage import study_tables
from saesweep.study.comparison import catalogue
from saesweep.study.pages.facts import Means, number
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.pages.template import fill, link

STYLES = ("common.css", "index.css")
TEXTS = ("explanation", *(key for key in study_tables.WORDS if key != "reason"))
HEADS = {"sae": "SAE", "latent": "latent", "rule_words": "rule", "top_token": "top token", "frequency": "frequency"}
CONTROL = "The SAE's means and, of the control, in brackets: "


def of_sae(sae: OfSAE, title: str, means: Means, up: str) -> str:
    """The index of one SAE's latents. up: to the folder of the study."""
    names = _names([sae])
    known = [f"{catalogue.score(name).words} {number(own)} ({number(control)})" for name, (own, control) in means.items()
             if name in names]
    about = f"{sae.place}; {len(sae.latents)} of {sae.collected.d_sae:,} latents are scored."
    nav = link(f"{up}/study.html", "Study") + link(f"{up}/features/index.html", "All latents")
    rows = _rows(sae, None, "", names)
    return fill("index.html", STYLES, "index.js", f"Latents of {title}", heading=f"Latents of {escape(title)}", nav=nav,
                about=escape(about), before=f"<p>{escape(CONTROL + '; '.join(known))}.</p>" if known else "",
                table=_table("Scored latents", _columns([sae], names, several=False), rows))


def of_all(saes: Sequence[OfSAE], names_of: Sequence[str], folders: Sequence[str]) -> str:
    """The index of all SAEs and all their latents. folders: relative to that of this page."""
    names = _names(saes)
    links = "".join(f"<li>{link(f'{folder}/index.html', title)}: {len(sae.latents)} latents</li>"
                    for sae, title, folder in zip(saes, names_of, folders, strict=True))
    rows = (row for sae, title, folder in zip(saes, names_of, folders, strict=True)
            for row in _rows(sae, title, f"{folder}/", names))
    return fill("index.html", STYLES, "index.js", "All scored latents", heading="All scored latents",
                nav=link("../study.html", "Study"), about=f"{len(saes)} SAEs.", before=f"<ul>{links}</ul>",
                table=_table("Scored latents of all SAEs", _columns(saes, names, several=True), rows))


def _names(saes: Sequence[OfSAE]) -> list[str]:
    """The scores that one of them has, the main ones first."""
    every = dict.fromkeys(name for sae in saes for name in sae.names)
    return sorted(every, key=lambda name: study_tables.MAIN.index(name) if name in study_tables.MAIN else len(every) + 8)


def _columns(saes: Sequence[OfSAE], names: Sequence[str], several: bool) -> list[str]:
    texts = [key for key in TEXTS if any(key in sae.scores or (key == "explanation" and sae.explanations) for sae in saes)]
    return [*["sae"] * several, "latent", *texts, "frequency", *names]


def _table(caption: str, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    texts = {"sae", *TEXTS}
    head = "".join(
        f'<th scope="col" data-key="{key}" title="{escape(catalogue.score(key).words)}"{" class=t" * (key in texts)}>'
        f"{HEADS.get(key, key.replace('_', ' '))}</th>" for key in columns)
    body = "".join(f"<tr>{''.join(_cell(key, row[key], key in texts) for key in columns)}</tr>" for row in rows)
    return scrolling(caption, head, body).replace("<table>", '<table id="latents">')


def _cell(key: str, content: str, text: bool) -> str:
    if key == "latent":
        return f'<th scope="row">{content}</th>'
    return f"<td class=t>{content}</td>" if text else f"<td>{content}</td>"


def _rows(sae: OfSAE, title: str | None, folder: str, names: Sequence[str]) -> Iterable[Mapping[str, str]]:
    """The cells of each latent, best rule first."""
    order = sae.scores.sort_values("rule", ascending=False, kind="stable") if "rule" in sae.scores else sae.scores
    return (_row(row, sae, title, folder, names) for row in order.to_dict("records"))


def _row(row: Mapping[Any, Any], sae: OfSAE, title: str | None, folder: str, names: Sequence[str]) -> Mapping[str, str]:
    latent = int(row["latent"])
    found = {key: escape(value) if isinstance(value := row.get(key), str) else "" for key in TEXTS}
    if latent in sae.explanations:
        found["explanation"] = escape(sae.explanations[latent].text)
    return {**found, "sae": escape(title or ""), "latent": link(f"{folder}{latent}.html", str(latent)),
            "frequency": f"{row['frequency']:.2g}" if not pd.isna(row["frequency"]) else "-",
            **{name: number(row.get(name)) for name in names}}
