"""The errors of the program, and how a user's mistake is reported."""
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HOW_TO_REPLACE = "choose another name=..., or replace these results with overwrite=true"


class UsageError(ValueError):
    """A user's mistake: the message names the key, its value and what to write instead; it is shown without a traceback."""


class TrainingFailed(RuntimeError):
    """The training of one SAE has ended for a reason that it found itself, such as weights that are not finite."""


@contextmanager
def exit_on_usage_error() -> Iterator[None]:
    """A user's mistake ends the program with exit code 1 and the message on stderr; no further job is started."""
    try:
        yield
    except UsageError as error:
        sys.exit(str(error))


def as_typed(value: Any) -> str:
    """A value of the config as it is typed on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def fix(path: str, node: Any) -> str:
    """What was meant by a list, by 300k or by a text in quotes, where one number or true or false is asked for."""
    if isinstance(node, list) and node and all(isinstance(value, int | float) for value in node):
        return f"; to sweep over several, write {path}={','.join(map(as_typed, node))} with -m"
    if isinstance(node, str) and (found := re.fullmatch(r"([\d.]+)([kKmM])", node)):
        return f", such as {path}={found[1]}e{3 if found[2] in 'kK' else 6}"
    if isinstance(node, str) and re.fullmatch(r"[+-]?\d[\d_.]*([eE][+-]?\d+)?|true|false", node.strip(), re.IGNORECASE):
        return f", and in quotes it is a text; write {path}={node.strip()}"
    return ""
