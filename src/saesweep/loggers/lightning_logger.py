"""Any Lightning logger, with an instance of its own per SAE: a YAML in conf/logger with its `_target_` and arguments.

Texts in the YAML speak of the SAE in braces, "{arch}-{aim}". What they can name is in `NAMES`.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from saesweep.config.instantiate import instantiate
from saesweep.errors import UsageError
from saesweep.loggers.identity import Mark, MemberInfo

NAMES = ("folder", "sweep_folder", "sweep", "path", "model", "site", "layer", "arch", "sparsity", "seed", "aim",
         "id", "version")
OURS = ("needs",)  # of the keys of such a YAML: the rest are the constructor's arguments
SECRET = re.compile(r"api_?key|token|password|secret|credential", re.IGNORECASE)
LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")


class PerSae:
    def __init__(self, kind: str, node: Mapping, member: MemberInfo) -> None:
        self._mark = Mark(member.folder / kind / "logged.json")
        known = {name: getattr(member, name) for name in NAMES if name != "version"}
        arguments = filled(f"logger.{kind}", node, known | {"version": self._mark.version})
        with _first_rank():
            self._logger = instantiate(arguments, leave=OURS)
            self._logger.log_hyperparams({**member.shown(), "command": member.command})

    def add(self, metrics: Mapping[str, int | float], tokens: int) -> None:
        if tokens > self._mark.tokens:
            self._log("train", metrics, tokens)
            self._mark.move(tokens, self._version())

    def group(self, metrics: Mapping[str, int | float]) -> None:
        self._log("group", metrics, max(0, self._mark.tokens))

    def close(self, summary: Mapping[str, int | float | None] | None, failed: str | None) -> None:
        numbers = {key: value for key, value in (summary or {}).items() if isinstance(value, int | float)}
        if numbers:
            self._log("eval", numbers, max(0, self._mark.tokens))
        with _first_rank():
            self._logger.finalize("success" if failed is None else "failed")

    def _log(self, part: str, metrics: Mapping[str, int | float], tokens: int) -> None:
        with _first_rank():
            self._logger.log_metrics({f"{part}/{key}": float(value) for key, value in metrics.items()}, step=tokens)
            self._logger.save()

    def _version(self) -> str | None:
        version = self._logger.version
        return version if isinstance(version, str) else None


@contextmanager
def _first_rank() -> Iterator[None]:
    """Where every rank has SAEs of its own, Lightning's loggers would write those of the first only."""
    from lightning.pytorch.utilities import rank_zero_only

    before = getattr(rank_zero_only, "rank", None)
    rank_zero_only.rank = 0
    try:
        yield
    finally:
        rank_zero_only.rank = before


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


def refuse_what_is_missing(path: str, node: Mapping) -> None:
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
