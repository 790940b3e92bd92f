"""Whether the Hugging Face hub can be reached, asked once and quickly: its own clients retry for most of a minute."""

import urllib.error
import urllib.request

from huggingface_hub import constants

from saesweep.errors import UsageError

TIMEOUT = 10  # seconds


def require_hub(key: str, repository: str, advice: str) -> None:
    """Raises where what `key` names is not on this machine and cannot be fetched."""
    missing = f"{key}: {repository} is not on this machine"
    if constants.HF_HUB_OFFLINE:
        raise UsageError(f"{missing}, and HF_HUB_OFFLINE forbids to fetch it: unset it, or {advice}")
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        raise UsageError(f"{missing}, and the hub cannot be reached ({error}): {advice}") from error
