"""What a user can get wrong, and how it is said."""
from typing import Any


class UsageError(ValueError):
    """A user's mistake: the message names the key, its value and what to write instead; it is shown without a traceback."""


def as_typed(value: Any) -> str:
    """A value of the config as it is typed on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
