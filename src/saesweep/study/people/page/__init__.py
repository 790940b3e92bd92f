"""The rating page: one HTML file that asks nobody for anything, or, served, only the server it came from.

Its script draws one latent at a time from JSON in the page. The policy in its head forbids every connection, and any script
but its own.
"""
from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from saesweep.report.page import embedded

SCRIPTS = ("store.js", "examples.js", "rate.js")  # rate.js last: it runs the page


def html(payload: Mapping[str, Any], answers: list[dict[str, Any]] | None = None) -> str:
    """A page of its own, or where `answers` are given, that of a server which has received these."""
    data = dict(payload) | ({"answers": answers} if answers is not None else {})
    script = '"use strict";\n' + "".join(map(_file, SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_file("rate.html")).substitute(
        css=_file("rate.css"), js=script, digest=digest, data=embedded(data),
        connect="'self'" if answers is not None else "'none'",
    )


def _file(name: str) -> str:
    return files("saesweep.study.people.page").joinpath(name).read_text(encoding="utf-8")
