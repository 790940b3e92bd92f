"""Load the language model of a file of conf/model, and its tokenizer.

`source` says where the weights come from, one of
    hub: google/gemma-2-9b, revision: main            a repository of the Hugging Face hub, or a folder
    package: .., install: .., parts: [..], sha256: .. a GGUF file inside pip packages, converted once (gguf.py)
    random: {model_type: .., seed: 0, ..}             random weights and a tokenizer of bytes, for tests
and beside it `shuffle: 0`, a seed, has its weights shuffled (shuffled.py).
`load` has what transformers' from_pretrained is given: attn_implementation, quantization_config, device_map.
`dtype: auto` is bfloat16, but float32 on a CPU without AMX, where bfloat16 runs at half the speed.
No pickle is read, no code of a repository is run, and a model in the cache of this machine needs no network.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache

from saesweep.errors import UsageError
from saesweep.lm import checks, gguf, hub, kinds, quantised
from saesweep.lm.chat import chat_of
from saesweep.lm.hooks import HookPoint, module_at, tensors_of
from saesweep.lm.hub import brief, from_hub, repository, silence_transformers
from saesweep.lm.shuffled import shuffle_
from saesweep.lm.tokenizer import RESERVED, Tokenizer, byte_tokenizer, from_backend
from saesweep.runtime.digests import sha256

log = logging.getLogger(__name__)
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


def load(model: Mapping[str, Any], device: str = "cpu", tokenizer: Tokenizer | None = None) -> LanguageModel:
    """The model, frozen and in eval mode. Raises UsageError unless it is complete, finite, and causal or an encoder.

    tokenizer: if it is loaded already.
    """
    transformers.utils.logging.disable_progress_bar()
    tokenizer = tokenizer or load_tokenizer(model)
    module = _module(model, dtype_of(model["dtype"], device), device).eval().requires_grad_(False)
    if (seed := model["source"].get("shuffle")) is not None:
        shuffle_(module, module.get_output_embeddings() if tokenizer.causal else None, seed)
    if not getattr(module, "hf_quantizer", None) and not (model.get("load") or {}).get("device_map"):  # else it is there
        module.to(device)  # pyright: ignore[reportArgumentType] - transformers wraps nn.Module.to without its signature
    module.config.use_cache = False
    checks.require_device(model, module, device)
    checks.require_finite(model, module)
    (checks.require_causal if tokenizer.causal else checks.require_masking)(model, module)
    return LanguageModel(module, tokenizer)


def load_tokenizer(model: Mapping[str, Any]) -> Tokenizer:
    """Reads the tokenizer and the config, no weights. Raises UsageError where they do not fit or cannot be loaded."""
    source = model["source"]
    if source.get("random"):
        config = _random_config(model)
        return replace(byte_tokenizer(model["bos"], checks.max_positions(config)), causal=kinds.is_causal(config))
    if source.get("hub"):
        config = _hub_config(model)
        loaded, causal = fast_tokenizer(model), kinds.is_causal(config)
        backend = loaded.backend_tokenizer
        checks.require_tokens(model, config, backend.get_vocab(with_added_tokens=True).values())
        first, limit = first_token(loaded, causal), checks.max_positions(config)
        made = from_backend(model, backend, first, loaded.all_special_ids, limit)
        return replace(made, causal=causal, chat=partial(chat_of, source["hub"], loaded))
    return from_backend(model, *gguf.tokenizer(model))


def fast_tokenizer(model: Mapping[str, Any]) -> transformers.PreTrainedTokenizerFast:
    """That of model.source.hub. Raises UsageError where it is none of the tokenizers library."""
    loaded = from_hub(transformers.AutoTokenizer, model)
    if not hasattr(loaded, "backend_tokenizer"):
        raise UsageError(f"model.source.hub={model['source']['hub']}: {type(loaded).__name__} is not a fast tokenizer; save a "
                         "fast one, with tokenizer.json, beside the model")
    return loaded


def first_token(tokenizer: Any, causal: bool) -> int | None:
    """The id of its BOS; of an encoder without one that of [CLS]."""
    bos = tokenizer.bos_token_id
    return tokenizer.cls_token_id if bos is None and not causal else bos


def dtype_of(name: str, device: str) -> torch.dtype:
    """The dtype of model.dtype on a device."""
    if name != "auto":
        return getattr(torch, name)
    slow = torch.device(device).type == "cpu" and not torch.cpu._is_amx_tile_supported()
    return torch.float32 if slow else torch.bfloat16


def _module(model: Mapping[str, Any], dtype: torch.dtype, device: str = "cpu") -> transformers.PreTrainedModel:
    source, config = model["source"], _config(model)
    if source.get("random"):
        return _random(model, config, dtype)
    folder = None if source.get("hub") else gguf.weights_folder(model)
    auto, options = kinds.auto_class(config), {
        "dtype": dtype, "use_safetensors": True, "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # require_weights refuses them
        **_load_options(model, config, device), **OUTPUTS,
    }
    with silence_transformers():  # require_weights reports what is missing
        module, found = auto.from_pretrained(folder, **options) if folder else from_hub(auto, model, **options)
    checks.require_weights(model, module, found)
    if not kinds.is_causal(config) and hasattr(module, kinds.POOLER):
        setattr(module, kinds.POOLER, None)
    return module


def require_modules(model: Mapping[str, Any], points: Iterable[HookPoint]) -> None:
    """Raises UsageError, before weights are loaded, where a hook point's path leads to no module."""
    config = _config(model)
    try:
        whole = kinds.without_memory(config)
    except Exception as error:  # whatever a model class raises; the paths are looked up again in the loaded model
        log.debug("%s is not built without memory: %s", model["name"], brief(error))
        return
    for tensor in tensors_of(points):
        module_at(whole, tensor)


def _config(model: Mapping[str, Any]) -> transformers.PreTrainedConfig:
    if model["source"].get("random"):
        return _random_config(model)
    if model["source"].get("hub"):
        return _hub_config(model)
    return checks.checked_config(model, transformers.AutoConfig.from_pretrained(gguf.weights_folder(model)))


def _load_options(model: Mapping[str, Any], config: transformers.PreTrainedConfig, device: str) -> dict[str, Any]:
    """What model.load says; quantised weights are put on the device as they are read."""
    load = model.get("load") or {}
    options = {
        "attn_implementation": load.get("attn_implementation") or kinds.attention_implementation(config),
        "device_map": load.get("device_map") or ({"": device} if quantised.is_quantised(model, config) else None),
        "quantization_config": quantised.asked(model),
    }
    return {key: value for key, value in options.items() if value is not None}


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


def _random(
    model: Mapping[str, Any], config: transformers.PreTrainedConfig, dtype: torch.dtype
) -> transformers.PreTrainedModel:
    options = {"dtype": dtype, **_load_options(model, config, "cpu")}
    with torch.random.fork_rng(devices=[]), _refuse_wrong_keys():
        torch.manual_seed(model["source"]["random"].get("seed", 0))
        return kinds.auto_class(config).from_config(config, **options)


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
