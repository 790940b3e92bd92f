"""A page of a template: it may run its own script alone, and makes no connection."""
from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from saesweep.report.page.tables import scrolling


@cache
def text(name: str) -> str:
    """A file of this package."""
    return files("saesweep.study.pages").joinpath(name).read_text(encoding="utf-8")


def _script(name: str | None) -> tuple[str, str]:
    """The element of a script, and what the policy of the page allows."""
    if name is None:
        return "", "'none'"
    script = f'"use strict";\n{text(name)}'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"<script>{script}</script>\n", f"'sha256-{digest}'"


@cache
def _template(body: str, styles: tuple[str, ...], script: str | None) -> Template:
    element, allowed = _script(script)
    parts = {"css": "".join(map(text, styles)), "allowed": allowed, "script": element.replace("$", "$$"), "body": text(body)}
    return Template(Template(text("page.html")).safe_substitute(parts))


def fill(body: str, styles: Iterable[str], script: str | None, title: str, more_css: str = "", **parts: str) -> str:
    """body, styles, script: files of this package. parts: HTML, by the names in the body."""
    return _template(body, tuple(styles), script).substitute(title=escape(title), more_css=more_css, **parts)


def table(caption: str, head: Iterable[str], rows: Iterable[str]) -> str:
    """caption, head: as text. rows: of `row`."""
    names = "".join(f'<th scope="col">{escape(one, quote=False)}</th>' for one in head)
    return scrolling(escape(caption), names, "".join(rows))


def row(head: str, cells: Iterable[str]) -> str:
    """head: HTML. cells: as text."""
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def link(href: str, words: str) -> str:
    return f'<a href="{escape(href)}">{escape(words)}</a>'
