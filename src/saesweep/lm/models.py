"""The language model that is read, and its tokenizer, from a file of conf/model.

`source` says where the weights come from, one of
    hub: google/gemma-2-9b, revision: main            a repository of the Hugging Face hub, or its copy on this machine
    package: .., install: .., parts: [..], sha256: .. a GGUF file inside pip packages, converted once (converted.py)
    random: {model_type: .., seed: 0, ..}             weights drawn in a second, and a tokenizer of bytes: for tests
`dtype: auto` is bfloat16, but float32 on a processor without AMX, which multiplies bfloat16 at half that speed.
No pickle is read, no code of a repository is run, and what is on this machine needs no network.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from huggingface_hub import try_to_load_from_cache

from saesweep.errors import UsageError
from saesweep.lm import checks, gguf, hub
from saesweep.lm.hub import brief, from_hub, quiet, repository
from saesweep.runtime.digests import sha256

AS_RUN = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}  # whatever the config says
RESERVED = 3  # ids of the byte tokenizer that are no bytes: 0 padding, 1 BOS, 2 EOS


@dataclass(frozen=True)
class Tokenizer:
    """`encode` takes texts and adds no special tokens; `bos` is None where the model is to be read without one."""

    encode: Callable[[list[str]], list[list[int]]]
    bos: int | None
    special: frozenset[int]  # never trained on
    vocab_size: int
    decode: Callable[[list[int]], str] | None = None
    positions: int | None = None  # the longest text that the model was made for; None where there is no limit


@dataclass(frozen=True)
class LanguageModel:
    module: transformers.PreTrainedModel  # frozen
    tokenizer: Tokenizer


def load(model: Mapping[str, Any], device: str = "cpu") -> LanguageModel:
    """Raises UsageError for what is not the whole, finite weights of a causal language model."""
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model)
    module = _module(model, dtype_of(model["dtype"], device)).to(device).eval().requires_grad_(False)
    module.config.use_cache = False
    checks.require_finite(model, module)
    checks.require_causal(model, module)
    return LanguageModel(module, tokenizer)


def load_tokenizer(model: Mapping[str, Any]) -> Tokenizer:
    """Reads no weights, but the config, for how long a text the model takes and how many tokens it knows."""
    source = model["source"]
    if source.get("random"):
        return _byte_tokenizer(model["bos"], checks.positions(_random_config(model)))
    if source.get("hub"):
        config = _hub_config(model)
        whole = from_hub(transformers.AutoTokenizer, model)
        if not hasattr(whole, "backend_tokenizer"):
            raise UsageError(f"model.source.hub={source['hub']}: {type(whole).__name__} is no fast tokenizer; save a fast one, "
                             "with tokenizer.json, beside the model")
        backend = whole.backend_tokenizer
        checks.require_tokens(model, config, backend.get_vocab(with_added_tokens=True).values())
        limit = checks.positions(config)
        return _tokenizer(model, backend, whole.bos_token_id, whole.all_special_ids, limit)
    return _tokenizer(model, *gguf.tokenizer(model))


def dtype_of(name: str, device: str) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    slow = torch.device(device).type == "cpu" and not torch.cpu._is_amx_tile_supported()
    return torch.float32 if slow else torch.bfloat16


def _module(model: Mapping[str, Any], dtype: torch.dtype) -> transformers.PreTrainedModel:
    source = model["source"]
    if source.get("random"):
        return _random(model, dtype)
    folder = None if source.get("hub") else gguf.weights_folder(model)
    config = _checked(model, transformers.AutoConfig.from_pretrained(folder)) if folder else _hub_config(model)
    options = {
        "dtype": dtype, "attn_implementation": checks.attention(config), "use_safetensors": True,
        "output_loading_info": True, "ignore_mismatched_sizes": True,  # they are refused by name
        **AS_RUN,
    }
    auto = transformers.AutoModelForCausalLM
    with quiet():  # its report on what is missing is ours to make
        module, found = auto.from_pretrained(folder, **options) if folder else from_hub(auto, model, **options)
    checks.require_weights(model, found)
    return module


def _hub_config(model: Mapping[str, Any]) -> transformers.PreTrainedConfig:
    place = Path(repository(model))
    if (place / "adapter_config.json").is_file():
        raise UsageError(f"model.source.hub={place}: it holds an adapter (adapter_config.json); merge it into its base model, "
                         "save that, and give its folder, without adapter_config.json")
    if place.is_dir() and not (place / "config.json").is_file():
        raise UsageError(f"model.source.hub={place}: there is no config.json in it; give a folder that save_pretrained wrote")
    return _checked(model, from_hub(transformers.AutoConfig, model))


def _checked(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    checks.require_config(model, config)
    return config


def _tokenizer(
    model: Mapping[str, Any], backend: tokenizers.Tokenizer, bos: int | None, special: list[int], positions: int | None = None,
) -> Tokenizer:
    if model["bos"] and bos is None:
        raise UsageError(f"model.bos=true: the tokenizer of {model['name']} has no BOS token; set model.bos=false")
    _encode_whole_texts(backend)
    added = [number for number, token in backend.get_added_tokens_decoder().items() if token.special]

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(ids: list[int]) -> str:
        return backend.decode(ids, skip_special_tokens=False)

    special = frozenset(special + added)
    return Tokenizer(encode, bos if model["bos"] else None, special, backend.get_vocab_size(), decode, positions)


def _encode_whole_texts(backend: tokenizers.Tokenizer) -> None:
    """And always the same: tokenizer.json may ask for truncation, padding, and merges or pieces left out at random."""
    backend.no_truncation()
    backend.no_padding()
    for sampling in ("dropout", "alpha", "nbest_size"):
        if getattr(backend.model, sampling, None) is not None:
            setattr(backend.model, sampling, None)


CONTENT = {  # of a model's folder: what determines its activations
    "weights": ("*.safetensors", "*.safetensors.index.json"),
    "config": ("config.json", "adapter_config.json"),
    "tokenizer": ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
                  "*.tiktoken"),
}


def weights_identity(model: Mapping[str, Any]) -> dict[str, str] | None:
    """What the weights, the config and the tokenizer are known by: for a local folder digests of all bytes of their files, for
    a repository its commit, once its tokenizer has been fetched. None where the settings say it all (a checksum, a seed)."""
    if not model["source"].get("hub"):
        return None
    if hub.is_folder(place := repository(model)):
        return {part: _digest_of(Path(place), part) for part in CONTENT}
    config = try_to_load_from_cache(place, "config.json", revision=model["source"]["revision"])
    return {"commit": Path(config).parent.name} if isinstance(config, str) else None


def _digest_of(folder: Path, part: str) -> str:
    names = {file.name for pattern in CONTENT[part] for file in folder.glob(pattern)}
    if part == "weights":
        names |= hub.named_weights(folder)
    lines = [f"{name} {sha256(folder / name)}" for name in sorted(names) if (folder / name).is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _random(model: Mapping[str, Any], dtype: torch.dtype) -> transformers.PreTrainedModel:
    config = _random_config(model)
    options = {"dtype": dtype, "attn_implementation": checks.attention(config)}
    with torch.random.fork_rng(devices=[]), _correct_keys():
        torch.manual_seed(model["source"]["random"].get("seed", 0))
        return transformers.AutoModelForCausalLM.from_config(config, **options)


def _random_config(model: Mapping[str, Any]) -> transformers.PreTrainedConfig:
    sizes = {key: value for key, value in model["source"]["random"].items() if key != "seed"}
    with _correct_keys():
        config = transformers.AutoConfig.for_model(**AS_RUN | sizes, vocab_size=256 + RESERVED)
        default = type(config)()
    checks.require_known(sizes, default)
    return _checked(model, config)


@contextmanager
def _correct_keys() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UsageError(f"model.source.random: {brief(error)}; correct its keys as transformers has them") from error


def _byte_tokenizer(bos: bool, positions: int | None) -> Tokenizer:
    def encode(texts: list[str]) -> list[list[int]]:
        return [[byte + RESERVED for byte in text.encode()] for text in texts]

    def decode(ids: list[int]) -> str:
        return bytes(number - RESERVED for number in ids if number >= RESERVED).decode(errors="replace")

    return Tokenizer(encode, 1 if bos else None, frozenset(range(RESERVED)), 256 + RESERVED, decode, positions)
