"""The node `logger` of the config: texts with the names of an SAE in braces, packages that are needed, and no secrets."""
import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from saesweep.errors import UsageError

NAMES = ("folder", "sweep_folder", "sweep", "path", "model", "site", "layer", "arch", "sparsity", "seed", "aim",
         "id", "variant", "version")
OURS = ("needs",)  # of the keys of such a YAML: the rest are the constructor's arguments
SECRET = re.compile(r"api_?key|token|password|secret|credential", re.IGNORECASE)
LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def filled(path: str, node: Any, known: Mapping[str, Any]) -> Any:
    """The node with what is in braces; a text that is one name and nothing else becomes the value itself."""
    if isinstance(node, Mapping):
        return {key: filled(f"{path}.{key}", value, known) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [filled(f"{path}.{i}", value, known) for i, value in enumerate(node)]
    if not isinstance(node, str):
        return node
    if (name := node.removeprefix("{").removesuffix("}")) in known and node == f"{{{name}}}":
        return known[name] if known[name] is None or isinstance(known[name], int | float) else str(known[name])
    try:
        return node.format_map(known)
    except (KeyError, ValueError, IndexError) as error:
        names = ", ".join(f"{{{name}}}" for name in known)
        raise UsageError(f"{path}={node}: in braces there can be {names}; a brace itself is written twice") from error


def refuse_missing_package(path: str, node: Mapping) -> None:
    """The package that does the work; and what is in braces is known."""
    needed = node.get("needs")
    if needed is not None and importlib.util.find_spec(needed) is None:
        extra = path.removeprefix("logger.")
        raise UsageError(f"logger={extra}: needs the package {needed}: pip install -e '.[{extra}]' or pip install {needed}")
    filled(path, node, dict.fromkeys(NAMES, ""))


def refuse_secrets(path: str, node: Any) -> None:
    """The config is written down in many places: a password is none of it."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if SECRET.search(str(key)) and value is not None:
                raise UsageError(f"{path}.{key}: would be written down with the config; take the key away and set the "
                                 "environment variable that its library reads instead")
            refuse_secrets(f"{path}.{key}", value)
    elif isinstance(node, list | tuple):
        for value in node:
            refuse_secrets(path, value)
    elif isinstance(node, str) and LOGIN.search(node):
        raise UsageError(f"{path}: has a password in its address, which would be written down with the config; set the "
                         "environment variables that its library reads instead")
