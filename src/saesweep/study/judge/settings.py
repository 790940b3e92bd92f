"""What the keys of conf/explainer require of each other; their types and ranges are in config/study_schema.py."""
from __future__ import annotations

import importlib.util
import ipaddress
import os
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from saesweep.config.study_schema import check_types
from saesweep.errors import UsageError, as_typed


def check_explainer(node: MutableMapping[str, Any]) -> None:
    """Raise UsageError for the first setting that cannot work; whole numbers such as 1e4 become ints in place."""
    check_types(node)
    if not has_model(node):
        return
    if node["model"] is None:
        known = "a file of conf/model" if node["name"] == "local" else f"the name of a model at {node['base_url']}"
        raise UsageError(f"explainer.model=null: write explainer.model=..., {known}")
    if node["name"] == "local" and "{prompt}" not in node["template"]:
        raise UsageError(f"explainer.template={node['template']}: must have {{prompt}} where the prompt stands")
    if node["name"] == "openai":
        host(node["base_url"])
        _package()


def _package() -> None:
    if importlib.util.find_spec("openai") is None:
        raise UsageError("explainer=openai: needs the package openai: pip install -e '.[study]' or pip install 'openai>=3,<4'")


def has_model(node: Mapping[str, Any]) -> bool:
    """Whether a language model explains or judges."""
    return node["name"] in ("openai", "local")


def host(base_url: str) -> str:
    """The host that gets the text. Raises UsageError for an address that is not http:// or https://."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"explainer.base_url={base_url}: must be an address such as http://127.0.0.1:8000/v1")
    return parts.hostname


def sends_text_to(node: Mapping[str, Any]) -> str | None:
    """The host to which text leaves this machine; None where it does not."""
    if node["name"] != "openai" or _is_loopback(name := host(node["base_url"])):
        return None
    return name


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def require_sending_allowed(node: Mapping[str, Any]) -> None:
    """Raise UsageError where text would leave this machine and nobody has agreed to it."""
    if (name := sends_text_to(node)) and not node["send_text"]:
        raise UsageError(f"explainer.send_text={as_typed(node['send_text'])}: held-out text would be sent to {name}; write "
                         "explainer.send_text=true if it may be")


def api_key(node: Mapping[str, Any]) -> str | None:
    """The key for the server. Raises UsageError where another machine needs one and it is not set."""
    key = os.environ.get(variable := node["key_variable"])
    if not key and (away := sends_text_to(node)):
        raise UsageError(f"explainer.key_variable={variable}: set this environment variable to your key for {away}")
    return key
