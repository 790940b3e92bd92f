"""A page of a template: it may run its own script alone, and makes no connection."""
from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from string import Template


@cache
def text(name: str) -> str:
    """A file of this package."""
    return files("saesweep.study.pages").joinpath(name).read_text(encoding="utf-8")


@cache
def _script(name: str) -> tuple[str, str]:
    """A script and the digest by which the policy of the page allows it."""
    script = f'"use strict";\n{text(name)}'
    return script, base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _template(name: str, styles: tuple[str, ...], script: str) -> Template:
    made, digest = _script(script)
    whole = text("page.html").replace("$css", "".join(map(text, styles))).replace("$digest", digest)
    return Template(whole.replace("$js", made.replace("$", "$$")).replace("$body", text(name)))


def fill(name: str, styles: Iterable[str], script: str, title: str, **parts: str) -> str:
    """name: of the body's template. parts: HTML."""
    return _template(name, tuple(styles), script).substitute(title=escape(title), **parts)


def link(href: str, words: str) -> str:
    return f'<a href="{escape(href)}">{escape(words)}</a>'
