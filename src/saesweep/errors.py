"""The errors of the program, and how a user's mistake is reported."""
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HOW_TO_REPLACE = "choose another name=..., or replace these results with overwrite=true"


class UsageError(ValueError):
    """A user's mistake. The message names the key, its value and the fix, and is shown without a traceback."""


class TrainingFailed(RuntimeError):
    """The training of one SAE has stopped itself, for instance because its weights are not finite."""


@contextmanager
def exit_on_usage_error() -> Iterator[None]:
    """A user's mistake ends the program with exit code 1 and the message on stderr; no further job is started."""
    try:
        yield
    except UsageError as error:
        sys.exit(str(error))


def reason(error: BaseException) -> str:
    """What is shown of an error: a user's mistake in its own words, others with their kind."""
    kind = RuntimeError if isinstance(error, TrainingFailed) else type(error)
    return str(error) if isinstance(error, UsageError) else f"{kind.__name__}: {error}"


def as_typed(value: Any) -> str:
    """A config value as typed on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def fix(path: str, node: Any) -> str:
    """The likely intent of a list, of 300k or of a quoted text, where a number or true or false is expected."""
    if isinstance(node, list) and node and all(isinstance(value, int | float) for value in node):
        return f"; to sweep over several, write {path}={','.join(map(as_typed, node))} with -m"
    if isinstance(node, str) and (found := re.fullmatch(r"([\d.]+)([kKmM])", node)):
        return f", such as {path}={found[1]}e{3 if found[2] in 'kK' else 6}"
    if isinstance(node, str) and re.fullmatch(r"[+-]?\d[\d_.]*([eE][+-]?\d+)?|true|false", node.strip(), re.IGNORECASE):
        return f", and in quotes it is a text; write {path}={node.strip()}"
    return ""
