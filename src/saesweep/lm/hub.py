"""Load a config, tokenizer, model or other files from the Hugging Face hub or from a folder; failures become one-line
UsageErrors.

One request with a short timeout tests whether the hub can be reached: its own client retries for most of a minute.
"""

import json
import logging
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from saesweep.errors import UsageError

log = logging.getLogger(__name__)
T = TypeVar("T")
TIMEOUT = 10  # seconds
WHAT = {"AutoConfig": "config.json", "AutoTokenizer": "tokenizer", "AutoModelForCausalLM": "weights", "AutoModel": "weights"}

UNUSABLE = (KeyError, ValueError, ImportError, TypeError, AttributeError)  # raised for values of a config, not for files


class Place(NamedTuple):
    """In a repository of the hub."""

    repository: str  # owner/name
    path: str  # of a folder or file in it; empty: the repository itself
    revision: str


def place(typed: str) -> Place | None:
    """Of owner/name/path[@revision]; None of what begins as a path does, and where owner/name is a folder of this machine."""
    named, _, revision = typed.partition("@")
    parts = PurePosixPath(named).parts
    if typed.startswith(("/", ".", "~")) or len(parts) < 2 or ".." in parts or Path(*parts[:2]).exists():
        return None
    return Place("/".join(parts[:2]), "/".join(parts[2:]), revision or "main")


def files_at(typed: str, at: Place, patterns: Sequence[str], read: Callable[[Path], T], advice: str) -> T:
    """`read` of the folder with the files of a repository that match the patterns, once from the cache of this machine and,
    where it raises there, again after a download.

    advice: what to do where the hub cannot be reached. Raises what `read` raises after a download, and UsageError where there
    is none.
    """
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"revision": at.revision, "allow_patterns": [*patterns]}
    try:
        return read(Path(snapshot_download(at.repository, local_files_only=True, **options)))
    except Exception as error:
        log.info("%s is not in the cache of this machine (%s)", typed, brief(error))
    require_hub(typed.partition("@")[0], at.repository, advice)
    logging.getLogger("huggingface_hub._snapshot_download").setLevel(logging.ERROR)  # `read` says what is missing
    try:
        root = Path(snapshot_download(at.repository, **options))
    except Exception as error:
        why = f"{at.repository} cannot be read at revision {at.revision}: {brief(error)}"
        fix = "correct the name; where it is private or gated, accept its terms on the hub, then `hf auth login`"
        raise UsageError(f"{typed}: {why}; {fix}") from error
    return read(root)


def require_hub(key: str, repository: str, advice: str) -> None:
    """Raises UsageError where the hub cannot be reached to download what `key` names. `advice`: what to do instead."""
    require_reachable(f"{key}: {repository} is not on this machine", advice)


def require_reachable(missing: str, advice: str) -> None:
    """Raises UsageError where the hub cannot be reached. missing: what it is asked for."""
    if constants.HF_HUB_OFFLINE:
        raise UsageError(f"{missing}, and HF_HUB_OFFLINE forbids downloads: unset it, or {advice}")
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # any status is an answer
    except OSError as error:
        raise UsageError(f"{missing}, and the hub cannot be reached ({error}): {advice}") from error


def repository(model: Mapping[str, Any]) -> str:
    """model.source.hub: owner/name, or a folder with `~` expanded."""
    named = str(model["source"]["hub"])
    return str(Path(named).expanduser()) if named.startswith("~") else named


def is_folder(source: str) -> bool:
    """True for a folder, False for the name of a repository. Raises UsageError for anything else."""
    if Path(source).is_dir():
        return True
    if source.startswith(("/", ".")) or source.count("/") > 1:
        raise UsageError(f"model.source.hub={source}: there is no such folder; give an existing one, or owner/name of the hub")
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise UsageError(f"model.source.hub={source}: it is neither a repository (owner/name) nor a folder; correct it"
                         ) from error
    return False


def from_hub(auto: type, model: Mapping[str, Any], **options: Any) -> Any:
    """`auto.from_pretrained` of a folder or repository; one in the cache of this machine is loaded without network access.

    Raises UsageError where it cannot be loaded.
    """
    source = repository(model)
    options |= {"revision": model["source"].get("revision"), "trust_remote_code": False}
    folder = is_folder(source)
    try:
        return _load(auto, source, local_files_only=True, **options)
    except Exception as error:
        if folder or isinstance(error, SafetensorError):
            raise _load_error(auto, model, error) from error
        log.info("%s is not in the cache of this machine (%s)", source, brief(error))
    require_hub(f"model={model['name']}", source, f"`hf download {source}` on a machine with network access")
    try:
        return _load(auto, source, **options)
    except Exception as error:
        raise _load_error(auto, model, error) from error


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress the log of transformers: what it warns of while loading is refused in one line, or has no effect."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _load(auto: type, source: str, **options: Any) -> Any:
    with silence_transformers():
        found = auto.from_pretrained(source, **options)
    if hasattr(found, "all_special_ids") and len(found) <= len(set(found.all_special_ids)):
        raise OSError("there are no files of one, such as tokenizer.json")  # transformers returns one of special tokens only
    return found


def _load_error(auto: type, model: Mapping[str, Any], error: Exception) -> UsageError:
    """The UsageError for what from_pretrained raised."""
    source = repository(model)
    where, folder, what = f"model.source.hub={source}", Path(source).is_dir(), WHAT[auto.__name__]
    if isinstance(error, SafetensorError):
        fix = "copy it again" if folder else f"download it again with `hf download {source} --force-download`"
        return UsageError(f"{where}: a file of its weights is damaged or truncated ({error}); {fix}")
    if "trust_remote_code" in str(error):
        return UsageError(f"{where}: its {what} needs code of its own, and no code of a repository is run; "
                          "give a model that transformers implements")
    if what == "weights" and isinstance(error, UNUSABLE) and "weight_map" not in str(error) and not _invalid_json(source):
        fix = "model.load" if model.get("load") else "config.json"
        return UsageError(f"{where}: its config cannot be used: {brief(error)}; correct {fix}")
    if not folder:
        fix = "correct the name; where it is gated, accept its terms on the hub, then `hf auth login`"
    elif what == "weights":
        fix = "give a folder with all files of its weights; they are read from safetensors only, no pickle"
    else:
        fix = "correct it, or copy its files again"
    because = (invalid := _invalid_json(source)) and f", {invalid} is not a JSON object"
    return UsageError(f"{where}: its {what} cannot be loaded{because}: {brief(error)}; {fix}")


def _invalid_json(source: str) -> str:
    """The .json files of a folder that hold no JSON object, comma-separated."""
    return ", ".join(file.name for file in sorted(Path(source).glob("*.json")) if _json_object(file) is None)


def _json_object(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def weight_files(folder: Path) -> set[str]:
    """Paths, relative to the folder, of the weight files that its config and its safetensors indices name; a missing file is
    reported when the weights are loaded."""
    own = (_json_object(folder / "config.json") or {}).get("transformers_weights")
    named = {own} if isinstance(own, str) else set()
    for index in [*folder.glob("*.safetensors.index.json"), *(folder / name for name in named)]:
        shards = (_json_object(index) or {}).get("weight_map") if index.suffix == ".json" else None
        named |= {shard for shard in shards.values() if isinstance(shard, str)} if isinstance(shards, dict) else set()
    return named


def brief(error: Exception) -> str:
    """One line of at most a few hundred characters, with the type of the error unless it is an OSError."""
    text = textwrap.shorten(str(error).rstrip(". \n"), 300, placeholder=" ...")
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}"
