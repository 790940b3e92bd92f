"""What transformers loads from a repository of the Hugging Face hub, or from a folder; what goes wrong there is one line.

Whether the hub can be reached is asked once and quickly: its own clients retry for most of a minute.
"""

import json
import logging
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from saesweep.errors import UsageError

log = logging.getLogger(__name__)
TIMEOUT = 10  # seconds
WHAT = {"AutoConfig": "config.json", "AutoTokenizer": "tokenizer", "AutoModelForCausalLM": "weights"}

UNUSABLE = (KeyError, ValueError, ImportError, TypeError, AttributeError)  # raised of a config's values, not of files


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


def is_folder(place: str) -> bool:
    """Or a repository. Raises UsageError for what can be neither."""
    if Path(place).is_dir():
        return True
    if place.startswith(("/", ".")) or place.count("/") > 1:
        raise UsageError(f"model.source.hub={place}: there is no such folder; give one that is there, or owner/name of the hub")
    try:
        validate_repo_id(place)
    except HFValidationError as error:
        raise UsageError(f"model.source.hub={place}: it is no name of a repository (owner/name) and no folder; correct "
                         "it") from error
    return False


def from_hub(auto: type, model: Mapping[str, Any], **options: Any) -> Any:
    """What `auto.from_pretrained` gives: from this machine's cache where it is there, without a look at the network.

    Raises UsageError where it cannot be loaded.
    """
    place = repository(model)
    options |= {"revision": model["source"].get("revision"), "trust_remote_code": False}
    folder = is_folder(place)
    try:
        return _loaded(auto, place, local_files_only=True, **options)
    except Exception as error:
        if folder or isinstance(error, SafetensorError):
            raise _refused(auto, model, error) from error
        log.info("%s is not on this machine yet (%s)", place, brief(error))
    require_hub(f"model={model['name']}", place, f"`hf download {place}` where there is a network")
    try:
        return _loaded(auto, place, **options)
    except Exception as error:
        raise _refused(auto, model, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what transformers logs: what it warns of while it loads is refused in one line, or changes nothing."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _loaded(auto: type, place: str, **options: Any) -> Any:
    with quiet():
        found = auto.from_pretrained(place, **options)
    if hasattr(found, "all_special_ids") and len(found) <= len(set(found.all_special_ids)):
        raise OSError("there are no files of one, such as tokenizer.json")  # transformers makes one of special tokens alone
    return found


def _refused(auto: type, model: Mapping[str, Any], error: Exception) -> UsageError:
    """What a loader raised, as one line."""
    place = repository(model)
    where, folder, what = f"model.source.hub={place}", Path(place).is_dir(), WHAT[auto.__name__]
    if isinstance(error, SafetensorError):
        fix = "copy it again" if folder else f"get it again by `hf download {place} --force-download`"
        return UsageError(f"{where}: a file of its weights is damaged or cut off ({error}); {fix}")
    if "trust_remote_code" in str(error):
        return UsageError(f"{where}: its {what} needs code of its own, and no code of a repository is run; "
                          "give a model that transformers itself has")
    if what == "weights" and isinstance(error, UNUSABLE) and "weight_map" not in str(error) and not _broken(place):
        return UsageError(f"{where}: its config cannot be used: {brief(error)}; correct config.json")
    if not folder:
        fix = "correct the name; where it is gated, accept its terms on the hub, then `hf auth login`"
    elif what == "weights":
        fix = "give a folder with all files of its weights; they are read from safetensors only, no pickle"
    else:
        fix = "mend it, or get its files again"
    because = (broken := _broken(place)) and f", {broken} is no JSON object"
    return UsageError(f"{where}: its {what} cannot be loaded{because}: {brief(error)}; {fix}")


def _broken(place: str) -> str:
    """The files of a folder that are no JSON objects."""
    return ", ".join(file.name for file in sorted(Path(place).glob("*.json")) if _json_object(file) is None)


def _json_object(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def named_weights(folder: Path) -> set[str]:
    """The files, with their subfolders, that the config and the indices of a folder name as its weights; whether they are
    there is seen when they are loaded."""
    own = (_json_object(folder / "config.json") or {}).get("transformers_weights")
    named = {own} if isinstance(own, str) else set()
    for index in [*folder.glob("*.safetensors.index.json"), *(folder / name for name in named)]:
        shards = (_json_object(index) or {}).get("weight_map") if index.suffix == ".json" else None
        named |= {shard for shard in shards.values() if isinstance(shard, str)} if isinstance(shards, dict) else set()
    return named


def brief(error: Exception) -> str:
    """One line of at most a few hundred characters, with what kind of error it is where the text alone says little."""
    text = textwrap.shorten(str(error).rstrip(". \n"), 300, placeholder=" ...")
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}"
