"""What transformers loads from a repository of the Hugging Face hub, or from a folder; what goes wrong there is one line.

Whether the hub can be reached is asked once and quickly: its own clients retry for most of a minute.
"""

import logging
import textwrap
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from safetensors import SafetensorError

from saesweep.errors import UsageError

log = logging.getLogger(__name__)
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


def repository(model: Mapping[str, Any]) -> str:
    """The repository, or the folder with `~` expanded."""
    named = str(model["source"]["hub"])
    return str(Path(named).expanduser()) if named.startswith("~") else named


def from_hub(auto: type, model: Mapping[str, Any], **options: Any) -> Any:
    """What `auto.from_pretrained` gives: from this machine's cache where it is there, without a look at the network.

    Raises UsageError where it cannot be loaded.
    """
    place = repository(model)
    options |= {"revision": model["source"].get("revision"), "trust_remote_code": False}
    folder = Path(place).is_dir()
    if not folder and (place.startswith(("/", ".")) or place.count("/") > 1):
        raise UsageError(f"model.source.hub={place}: there is no such folder; give one that is there, or owner/name of the hub")
    try:
        return _loaded(auto, place, local_files_only=True, **options)
    except Exception as error:
        if folder or isinstance(error, SafetensorError):
            raise refused(model, error, **options) from error
        log.info("%s is not on this machine yet (%s)", place, brief(error))
    require_hub(f"model={model['name']}", place, f"`hf download {place}` where there is a network")
    try:
        return _loaded(auto, place, **options)
    except Exception as error:
        raise refused(model, error, **options) from error


def _loaded(auto: type, place: str, **options: Any) -> Any:
    found = auto.from_pretrained(place, **options)
    if hasattr(found, "get_vocab") and set(found.get_vocab().values()) <= set(found.all_special_ids):
        raise OSError(f"{place} has no files of a tokenizer, such as tokenizer.json")  # transformers makes an empty one
    return found


def refused(model: Mapping[str, Any], error: Exception, **options: Any) -> UsageError:
    """What a loader raised, as one line."""
    place = repository(model)
    if isinstance(error, SafetensorError):
        return UsageError(f"model={model['name']}: a file of weights of {place} is damaged or cut off ({error}); get it "
                          f"again, from the hub by `hf download {place} --force-download`")
    if "trust_remote_code" in str(error):
        fix = "it needs code of its own, and no code of a repository is run; give a model that transformers itself has"
    elif "use_safetensors" in options and Path(place).is_dir() and isinstance(error, OSError):
        fix = "weights are read from safetensors only, no pickle"
    elif not Path(place).is_dir():
        fix = "correct the name; where it is gated, accept its terms on the hub, then `hf auth login`"
    else:
        fix = "mend or complete it, or give another model.source.hub"
    return UsageError(f"model.source.hub={place}: {brief(error)}; {fix}")


def brief(error: Exception) -> str:
    """One line of at most a few hundred characters, with what kind of error it is where the text alone says little."""
    text = textwrap.shorten(str(error), 300, placeholder=" ...")
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}"
