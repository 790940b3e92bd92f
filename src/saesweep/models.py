"""The language model that is read, and its tokenizer, from a file of conf/model.

`source` says where the weights come from, one of
    hub: google/gemma-2-9b, revision: main            a repository of the Hugging Face hub, or its copy on this machine
    package: .., install: .., parts: [..], sha256: .. a GGUF file inside pip packages, converted once (converted.py)
    random: {model_type: .., seed: 0, ..}             weights drawn in a second, and a tokenizer of bytes: for tests
`dtype: auto` is bfloat16, but float32 on a processor without AMX, which multiplies bfloat16 at half that speed.
No pickle is read, no code of a repository is run, and what is on this machine needs no network.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError

from saesweep import converted
from saesweep.digests import sha256
from saesweep.errors import UsageError
from saesweep.hub import require_hub

log = logging.getLogger(__name__)
RESERVED = 3  # ids of the byte tokenizer that are no bytes: 0 padding, 1 BOS, 2 EOS


@dataclass(frozen=True)
class Tokenizer:
    """`encode` takes texts and adds no special tokens; `bos` is None where the model is to be read without one."""

    encode: Callable[[list[str]], list[list[int]]]
    bos: int | None
    special: frozenset[int]  # never trained on
    vocab_size: int
    decode: Callable[[list[int]], str] | None = None


@dataclass(frozen=True)
class LanguageModel:
    module: transformers.PreTrainedModel  # frozen
    tokenizer: Tokenizer


def load(model: Mapping[str, Any], device: str = "cpu") -> LanguageModel:
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model)
    module = _module(model, dtype_of(model["dtype"], device))
    layers = module.config.num_hidden_layers
    if layers != model["layers"]:
        raise UsageError(f"model.layers={model['layers']}: {model['name']} has {layers}; correct conf/model")
    module.config.use_cache = False
    return LanguageModel(module.to(device).eval().requires_grad_(False), tokenizer)


def load_tokenizer(model: Mapping[str, Any]) -> Tokenizer:
    """Reads no weights."""
    source = model["source"]
    if source.get("random"):
        return _byte_tokenizer(model["bos"])
    if source.get("hub"):
        whole = _from_hub(transformers.AutoTokenizer, model)
        return _tokenizer(model, whole.backend_tokenizer, whole.bos_token_id, whole.all_special_ids)
    return _tokenizer(model, *converted.tokenizer(model))


def dtype_of(name: str, device: str) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    slow = torch.device(device).type == "cpu" and not torch.cpu._is_amx_tile_supported()
    return torch.float32 if slow else torch.bfloat16


def _module(model: Mapping[str, Any], dtype: torch.dtype) -> transformers.PreTrainedModel:
    source = model["source"]
    options = {"dtype": dtype, "attn_implementation": "sdpa"}
    if source.get("random"):
        return _random(source["random"], **options)
    if source.get("hub"):
        return _from_hub(transformers.AutoModelForCausalLM, model, use_safetensors=True, **options)
    return transformers.AutoModelForCausalLM.from_pretrained(converted.weights_folder(model), **options)


def _tokenizer(
    model: Mapping[str, Any], backend: tokenizers.Tokenizer, bos: int | None, special: list[int]
) -> Tokenizer:
    if model["bos"] and bos is None:
        raise UsageError(f"model.bos=true: the tokenizer of {model['name']} has no BOS token; set model.bos=false")
    added = [number for number, token in backend.get_added_tokens_decoder().items() if token.special]

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(ids: list[int]) -> str:
        return backend.decode(ids, skip_special_tokens=False)

    return Tokenizer(encode, bos if model["bos"] else None, frozenset(special + added), backend.get_vocab_size(), decode)


def _from_hub(auto: type, model: Mapping[str, Any], **options: Any) -> Any:
    """From this machine's cache where it is there, without a look at the network."""
    repository = model["source"]["hub"]
    options |= {"revision": model["source"]["revision"], "trust_remote_code": False}
    try:
        return auto.from_pretrained(repository, local_files_only=True, **options)
    except OSError as error:
        if Path(repository).is_dir():
            only = "; weights are read from safetensors only, no pickle" if "use_safetensors" in options else ""
            raise UsageError(f"model={model['name']}: {repository}: {error}{only}") from error
        log.info("%s is not on this machine yet", repository)
    except SafetensorError as error:
        raise _damaged(model, error) from error
    require_hub(f"model={model['name']}", repository, f"`hf download {repository}` where there is a network")
    try:
        return auto.from_pretrained(repository, **options)
    except OSError as error:
        raise UsageError(f"model={model['name']}: the hub does not hand out {repository}: {error}") from error
    except SafetensorError as error:
        raise _damaged(model, error) from error


def _damaged(model: Mapping[str, Any], error: SafetensorError) -> UsageError:
    repository = model["source"]["hub"]
    return UsageError(f"model={model['name']}: a file of weights of {repository} is damaged or cut off ({error}); get it "
                      f"again, from the hub by `hf download {repository} --force-download`")


CONTENT = {  # of a model's folder: what determines its activations
    "weights": ("*.safetensors", "*.safetensors.index.json"),
    "config": ("config.json", "adapter_config.json"),
    "tokenizer": ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
                  "*.tiktoken"),
}


def weights_identity(model: Mapping[str, Any]) -> dict[str, str] | None:
    """What the weights, the config and the tokenizer are known by: for a local folder digests of all bytes of their files, for
    a repository its commit, once its tokenizer has been fetched. None where the settings say it all (a checksum, a seed)."""
    if not (repository := model["source"].get("hub")):
        return None
    if (folder := Path(repository)).is_dir():
        return {part: _digest_of(folder, patterns) for part, patterns in CONTENT.items()}
    config = try_to_load_from_cache(repository, "config.json", revision=model["source"]["revision"])
    return {"commit": Path(config).parent.name} if isinstance(config, str) else None


def _digest_of(folder: Path, patterns: Sequence[str]) -> str:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    lines = [f"{file.name} {sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _random(random: Mapping[str, Any], **options: Any) -> transformers.PreTrainedModel:
    sizes = {key: value for key, value in random.items() if key != "seed"}
    config = transformers.AutoConfig.for_model(**sizes, vocab_size=256 + RESERVED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random["seed"])
        return transformers.AutoModelForCausalLM.from_config(config, **options)


def _byte_tokenizer(bos: bool) -> Tokenizer:
    def encode(texts: list[str]) -> list[list[int]]:
        return [[byte + RESERVED for byte in text.encode()] for text in texts]

    def decode(ids: list[int]) -> str:
        return bytes(number - RESERVED for number in ids if number >= RESERVED).decode(errors="replace")

    return Tokenizer(encode, 1 if bos else None, frozenset(range(RESERVED)), 256 + RESERVED, decode)
