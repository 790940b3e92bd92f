"""What a user can get wrong."""


class UsageError(ValueError):
    """A user's mistake: the message names the key, its value and what to write instead; it is shown without a traceback."""
