"""Checks of a language model: of its config before the weights are loaded, of the weights and the module after.

transformers initialises missing weights at random and only logs it; here they are refused.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import transformers
from torch import nn

from saesweep.errors import UsageError
from saesweep.lm.hub import brief
from saesweep.runtime.memory import out_of_memory


def text_config(config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    """The config of the text decoder: of a multimodal model its part, else the config itself."""
    return config.get_text_config(decoder=True)


def max_positions(config: transformers.PreTrainedConfig) -> int | None:
    """The longest context, in tokens, that the config allows; None where it sets no limit."""
    found = (getattr(text_config(config), key, None) for key in ("max_position_embeddings", "max_seq_len"))
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def attention_implementation(config: transformers.PreTrainedConfig) -> str:
    """sdpa where the class supports it, else eager. Also eager where attention logits are soft-capped: sdpa leaves the cap
    out, in transformers 5.18 without a warning."""
    capped = getattr(text_config(config), "attn_logit_softcapping", None)
    model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "sdpa" if getattr(model_class, "_supports_sdpa", False) and not capped else "eager"


def checked_config(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    """The config. Raises UsageError unless it is of an unquantised causal language model that transformers implements, with
    model.layers blocks."""
    where, sections = _key(model), (config, text_config(config))
    if any(getattr(c, key, None) for c in sections for key in ("quantization_config", "compression_config")):
        raise UsageError(f"{where}: its weights are quantised (quantization_config); give a dequantised copy")
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        raise UsageError(f"{where}: its config needs code of its own (auto_map), and no code of a repository is run; give a "
                         "model that transformers implements, or a copy without auto_map if the model is the same")
    if config.is_encoder_decoder or type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(f"{where}: model_type {config.model_type} is not a causal language model of transformers; give one, "
                         "such as those of conf/model")
    layers = getattr(text_config(config), "num_hidden_layers", None)
    if layers != model["layers"]:
        raise UsageError(f"model.layers={model['layers']}: {model['name']} has {layers}; correct conf/model")
    return config


def require_tokens(model: Mapping[str, Any], config: transformers.PreTrainedConfig, ids: Iterable[int]) -> None:
    """Raises UsageError where a token id of the tokenizer has no row in the embedding, which may have more rows (padding)."""
    ids, rows = set(ids), getattr(text_config(config), "vocab_size", None)
    if rows is not None and max(ids) >= rows:
        raise UsageError(f"{_key(model)}: its tokenizer has {len(ids):,} tokens with ids up to {max(ids):,}, but its "
                         f"embedding {rows:,} rows; give the tokenizer that the model was trained with")


def require_weights(model: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises UsageError unless files and module have the same tensors. `found`: the `loading_info` of transformers, in which
    tied weights do not count as missing."""
    kinds = {"missing_keys": "lacks", "unexpected_keys": "has no place for", "mismatched_keys": "has in another shape"}
    wrong = []
    for kind, what in kinds.items():
        if keys := sorted(key if isinstance(key, str) else key[0] for key in found[kind]):
            wrong.append(f"{what} {_first_three(keys)}")
    wrong += [brief(RuntimeError(message)) for message in found["error_msgs"][:1]]
    if wrong:
        raise UsageError(f"{_key(model)}: its files are not the weights of its config's model, which {'; '.join(wrong)}; "
                         "give a folder written by save_pretrained of the whole model: missing weights would be random")


def require_finite(model: Mapping[str, Any], module: nn.Module) -> None:
    """Raises UsageError for weights that are NaN or infinite; their minimum and maximum show it, as aminmax passes NaN on."""
    ends = {name: torch.stack(p.aminmax()) for name, p in module.named_parameters() if p.is_floating_point() and p.numel()}
    if bad := [name for name, found in ends.items() if not found.isfinite().all()]:
        dtype = str(module.dtype).removeprefix("torch.")
        raise UsageError(f"{_key(model)}: weights are NaN or infinite in {dtype}: {_first_three(bad)}; download it again, or "
                         "set model.dtype=float32 if they exceed the range of float16")


@torch.no_grad()
def require_causal(model: Mapping[str, Any], module: nn.Module) -> None:
    """Raises UsageError where the logits of a token depend on later tokens: blocks are padded at their end, without a mask.

    Two inputs of 16 tokens share their first 8, for which a causal model does the same arithmetic: the logits may differ by
    rounding only. Mixture-of-experts models batch these tokens with others, which rounds more.
    """
    begin = [0, 1, 2, 3] * 2
    parameter = next(module.parameters())
    texts = torch.tensor([[begin + [0, 1] * 4], [begin + [2, 3] * 4]], device=parameter.device)
    try:
        one, other = (module(input_ids=text, use_cache=False).logits[:, : len(begin)].double() for text in texts)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"{_key(model)}: its forward pass fails: {brief(error)}; give another model") from error
    most = 0.02 if any("expert" in name for name, _ in module.named_modules()) else 1e-3
    rounding = min(most, 100 * torch.finfo(parameter.dtype).eps)
    spread = (one - one.mean(1, keepdim=True)).square().mean().sqrt()
    if (one - other).square().mean().sqrt() > rounding * spread:  # false for NaN, which the statistics report
        raise UsageError(f"{_key(model)}: it is not causal, tokens see later ones; give a causal language model")


def require_known(settings: Mapping[str, Any], default: transformers.PreTrainedConfig) -> None:
    """Raises UsageError for keys of model.source.random that the config class does not have: they would have no effect."""
    for key in settings:
        if key != "model_type" and not hasattr(default, key):
            close = difflib.get_close_matches(key, default.to_dict(), n=1)
            fix = f"did you mean {close[0]}?" if close else "leave it out"
            raise UsageError(f"model.source.random.{key}={settings[key]}: model_type {default.model_type} has no {key}; {fix}")


def _key(model: Mapping[str, Any]) -> str:
    hub = model["source"].get("hub")
    return f"model.source.hub={hub}" if hub else f"model={model['name']}"


def _first_three(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
