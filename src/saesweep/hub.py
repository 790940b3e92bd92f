"""What transformers loads from a repository of the Hugging Face hub, or from a folder; what goes wrong there is one line.

Whether the hub can be reached is asked once and quickly: its own clients retry for most of a minute.
"""

import json
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
WHAT = {"AutoConfig": "config.json", "AutoTokenizer": "tokenizer", "AutoModelForCausalLM": "weights"}


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
            raise _refused(auto, model, error) from error
        log.info("%s is not on this machine yet (%s)", place, brief(error))
    require_hub(f"model={model['name']}", place, f"`hf download {place}` where there is a network")
    try:
        return _loaded(auto, place, **options)
    except Exception as error:
        raise _refused(auto, model, error) from error


def _loaded(auto: type, place: str, **options: Any) -> Any:
    found = auto.from_pretrained(place, **options)
    if hasattr(found, "all_special_ids") and len(found) <= len(set(found.all_special_ids)):
        raise OSError("there are no files of one, such as tokenizer.json")  # transformers makes one of special tokens alone
    return found


def _refused(auto: type, model: Mapping[str, Any], error: Exception) -> UsageError:
    """What a loader raised, as one line."""
    place = repository(model)
    if isinstance(error, SafetensorError):
        return UsageError(f"model={model['name']}: a file of weights of {place} is damaged or cut off ({error}); get it "
                          f"again, from the hub by `hf download {place} --force-download`")
    what = WHAT[auto.__name__]
    if "trust_remote_code" in str(error):
        return UsageError(f"model.source.hub={place}: its {what} needs code of its own, and no code of a repository is run; "
                          "give a model that transformers itself has")
    if not Path(place).is_dir():
        fix = "correct the name; where it is gated, accept its terms on the hub, then `hf auth login`"
    elif what == "weights":
        fix = "give a folder with all files of its weights; they are read from safetensors only, no pickle"
    else:
        fix = "mend it, or get its files again"
    broken = ", ".join(file.name for file in sorted(Path(place).glob("*.json")) if not _is_json_object(file))
    return UsageError(f"model.source.hub={place}: its {what} cannot be loaded{broken and f', {broken} is no JSON object'}: "
                      f"{brief(error)}; {fix}")


def _is_json_object(file: Path) -> bool:
    return _json_object(file) is not None


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
