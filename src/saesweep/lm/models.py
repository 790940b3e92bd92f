"""Load the language model of a file of conf/model, and its tokenizer.

`source` says where the weights come from, one of
    hub: google/gemma-2-9b, revision: main            a repository of the Hugging Face hub, or a folder
    package: .., install: .., parts: [..], sha256: .. a GGUF file inside pip packages, converted once (gguf.py)
    random: {model_type: .., seed: 0, ..}             random weights and a tokenizer of bytes, for tests
and beside it `shuffle: 0`, a seed, has its weights shuffled (shuffled.py).
`dtype: auto` is bfloat16, but float32 on a CPU without AMX, where bfloat16 runs at half the speed.
No pickle is read, no code of a repository is run, and a model in the cache of this machine needs no network.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache

from saesweep.errors import UsageError
from saesweep.lm import checks, gguf, hub
from saesweep.lm.chat import chat_of
from saesweep.lm.hub import brief, from_hub, repository, silence_transformers
from saesweep.lm.shuffled import shuffle_
from saesweep.lm.tokenizer import RESERVED, Tokenizer, byte_tokenizer, from_backend
from saesweep.runtime.digests import sha256

OUTPUTS: dict[str, Any] = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}
CONTENT = {  # files of a model folder that determine its activations
    "weights": ("*.safetensors", "*.safetensors.index.json"),
    "config": ("config.json", "adapter_config.json"),
    "tokenizer": ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
                  "*.tiktoken"),
}


@dataclass(frozen=True)
class LanguageModel:
    """A model, frozen and in eval mode, with its tokenizer."""

    module: transformers.PreTrainedModel
    tokenizer: Tokenizer


def load(model: Mapping[str, Any], device: str = "cpu") -> LanguageModel:
    """The model, frozen and in eval mode. Raises UsageError unless it is causal, complete and finite."""
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model)
    module = _module(model, dtype_of(model["dtype"], device)).eval().requires_grad_(False)
    if (seed := model["source"].get("shuffle")) is not None:
        shuffle_(module, module.get_output_embeddings(), seed)
    module.to(device)  # pyright: ignore[reportArgumentType] - transformers wraps nn.Module.to without its signature
    module.config.use_cache = False
    checks.require_finite(model, module)
    checks.require_causal(model, module)
    return LanguageModel(module, tokenizer)


def load_tokenizer(model: Mapping[str, Any]) -> Tokenizer:
    """Reads the tokenizer and the config, no weights. Raises UsageError where they do not fit or cannot be loaded."""
    source = model["source"]
    if source.get("random"):
        return byte_tokenizer(model["bos"], checks.max_positions(_random_config(model)))
    if source.get("hub"):
        config = _hub_config(model)
        loaded = from_hub(transformers.AutoTokenizer, model)
        if not hasattr(loaded, "backend_tokenizer"):
            raise UsageError(f"model.source.hub={source['hub']}: {type(loaded).__name__} is not a fast tokenizer; save a fast "
                             "one, with tokenizer.json, beside the model")
        backend = loaded.backend_tokenizer
        checks.require_tokens(model, config, backend.get_vocab(with_added_tokens=True).values())
        made = from_backend(model, backend, loaded.bos_token_id, loaded.all_special_ids, checks.max_positions(config))
        return replace(made, chat=partial(chat_of, source["hub"], loaded))
    return from_backend(model, *gguf.tokenizer(model))


def dtype_of(name: str, device: str) -> torch.dtype:
    """The dtype of model.dtype on a device."""
    if name != "auto":
        return getattr(torch, name)
    slow = torch.device(device).type == "cpu" and not torch.cpu._is_amx_tile_supported()
    return torch.float32 if slow else torch.bfloat16


def _module(model: Mapping[str, Any], dtype: torch.dtype) -> transformers.PreTrainedModel:
    source = model["source"]
    if source.get("random"):
        return _random(model, dtype)
    folder = None if source.get("hub") else gguf.weights_folder(model)
    config = checks.checked_config(model, transformers.AutoConfig.from_pretrained(folder)) if folder else _hub_config(model)
    options = {
        "dtype": dtype, "attn_implementation": checks.attention_implementation(config), "use_safetensors": True,
        "output_loading_info": True, "ignore_mismatched_sizes": True,  # require_weights refuses them
        **OUTPUTS,
    }
    auto: Any = transformers.AutoModelForCausalLM
    with silence_transformers():  # require_weights reports what is missing
        module, found = auto.from_pretrained(folder, **options) if folder else from_hub(auto, model, **options)
    checks.require_weights(model, found)
    return module


def _hub_config(model: Mapping[str, Any]) -> transformers.PreTrainedConfig:
    folder = Path(repository(model))
    if (folder / "adapter_config.json").is_file():
        raise UsageError(f"model.source.hub={folder}: it holds an adapter (adapter_config.json); merge it into its base model, "
                         "save that, and give its folder, without adapter_config.json")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UsageError(f"model.source.hub={folder}: there is no config.json in it; give a folder that save_pretrained wrote")
    return checks.checked_config(model, from_hub(transformers.AutoConfig, model))


def weights_identity(model: Mapping[str, Any]) -> dict[str, str] | None:
    """Identity of weights, config and tokenizer: of a folder the digests of their files, of a repository its commit (once its
    config is in the cache). None where the settings determine them (a checksum, a seed)."""
    if not model["source"].get("hub"):
        return None
    if hub.is_folder(source := repository(model)):
        return {part: _digest_of(Path(source), part) for part in CONTENT}
    config = try_to_load_from_cache(source, "config.json", revision=model["source"]["revision"])
    return {"commit": Path(config).parent.name} if isinstance(config, str) else None


def _digest_of(folder: Path, part: str) -> str:
    names = {file.name for pattern in CONTENT[part] for file in folder.glob(pattern)}
    if part == "weights":
        names |= hub.weight_files(folder)
    lines = [f"{name} {sha256(folder / name)}" for name in sorted(names) if (folder / name).is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _random(model: Mapping[str, Any], dtype: torch.dtype) -> transformers.PreTrainedModel:
    config = _random_config(model)
    options = {"dtype": dtype, "attn_implementation": checks.attention_implementation(config)}
    with torch.random.fork_rng(devices=[]), _refuse_wrong_keys():
        torch.manual_seed(model["source"]["random"].get("seed", 0))
        return transformers.AutoModelForCausalLM.from_config(config, **options)


def _random_config(model: Mapping[str, Any]) -> transformers.PreTrainedConfig:
    sizes: dict[str, Any] = {key: value for key, value in model["source"]["random"].items() if key != "seed"}
    with _refuse_wrong_keys():
        config = transformers.AutoConfig.for_model(**OUTPUTS | sizes, vocab_size=256 + RESERVED)
        default = type(config)()
    checks.require_known(sizes, default)
    return checks.checked_config(model, config)


@contextmanager
def _refuse_wrong_keys() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UsageError(f"model.source.random: {brief(error)}; correct its keys: transformers defines them") from error
