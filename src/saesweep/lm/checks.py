"""What is checked of a language model: of its config before the weights are loaded, of the weights and the module after.

A folder says what it holds, and is not believed: transformers fills in what is missing with random numbers.
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
    """The part on the language model, where a model has others, such as one for images."""
    return config.get_text_config(decoder=True)


def positions(config: transformers.PreTrainedConfig) -> int | None:
    """How long a text the model was made for, in tokens; None where its config sets no limit."""
    found = (getattr(text_config(config), key, None) for key in ("max_position_embeddings", "max_seq_len"))
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def attention(config: transformers.PreTrainedConfig) -> str:
    """sdpa where the class has it, eager where it has not or logits are capped: sdpa drops the cap, older transformers (5.18)
    without a word."""
    capped = getattr(text_config(config), "attn_logit_softcapping", None)
    model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "sdpa" if model_class._supports_sdpa and not capped else "eager"


def require_config(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> None:
    """Before weights are loaded. Raises UsageError for what is not the plain weights of a language model, causal and known
    to transformers, with model.layers blocks."""
    where, sections = _where(model), (config, text_config(config))
    if any(getattr(c, key, None) for c in sections for key in ("quantization_config", "compression_config")):
        raise UsageError(f"{where}: its weights are quantised (quantization_config); give a dequantised copy")
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        raise UsageError(f"{where}: its config names code of its own (auto_map), and no code of a repository is run; give a "
                         "model that transformers itself has, or a copy without auto_map where that is the same")
    if config.is_encoder_decoder or type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(f"{where}: model_type {config.model_type} is no causal language model of transformers; give one, "
                         "such as those of conf/model")
    _require_layers(model, text_config(config))


def _require_layers(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> None:
    layers = getattr(config, "num_hidden_layers", None)
    if layers != model["layers"]:
        raise UsageError(f"model.layers={model['layers']}: {model['name']} has {layers}; correct conf/model")


def require_tokens(model: Mapping[str, Any], config: transformers.PreTrainedConfig, ids: Iterable[int]) -> None:
    """Every token of the tokenizer has a row of the embedding; one with more rows is padded, which does no harm."""
    ids, rows = set(ids), getattr(text_config(config), "vocab_size", None)
    if rows is not None and max(ids) >= rows:
        raise UsageError(f"{_where(model)}: its tokenizer has {len(ids):,} tokens, the last of them number {max(ids):,}, but "
                         f"its embedding {rows:,} rows; give the tokenizer that the model was trained with")


def require_weights(model: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """`found`: what transformers says of the files beside the module; a tied weight is never missing."""
    kinds = {"missing_keys": "lacks", "unexpected_keys": "has no place for", "mismatched_keys": "has in another shape"}
    wrong = []
    for kind, what in kinds.items():
        if keys := sorted(key if isinstance(key, str) else key[0] for key in found[kind]):
            wrong.append(f"{what} {_some(keys)}")
    wrong += [brief(RuntimeError(message)) for message in found["error_msgs"][:1]]
    if wrong:
        raise UsageError(f"{_where(model)}: its files are not the weights of its config's model, which {'; '.join(wrong)}; "
                         "give a folder that save_pretrained of the whole model wrote: what is lacking would be random")


def require_finite(model: Mapping[str, Any], module: nn.Module) -> None:
    """The least and the largest value of each tensor are finite, and so are all: NaN is both."""
    ends = {name: torch.stack(p.aminmax()) for name, p in module.named_parameters() if p.is_floating_point() and p.numel()}
    if bad := [name for name, found in ends.items() if not found.isfinite().all()]:
        dtype = str(module.dtype).removeprefix("torch.")
        raise UsageError(f"{_where(model)}: weights are NaN or infinite in {dtype}: {_some(bad)}; get it again, or set "
                         "model.dtype=float32 if float16 is too narrow for it")


@torch.no_grad()
def require_causal(model: Mapping[str, Any], module: nn.Module) -> None:
    """What a model computes of a token does not depend on later ones: blocks are padded at their end, without a mask.

    Two texts of 16 tokens have the same first 8, which a causal model computes from the same numbers in the same order, so
    that little more than nothing may differ in any dtype. Experts multiply other tokens beside these, and may round otherwise.
    """
    begin = [0, 1, 2, 3] * 2
    texts = torch.tensor([[begin + [0, 1] * 4], [begin + [2, 3] * 4]], device=module.device)
    try:
        one, other = (module(input_ids=text, use_cache=False).logits[:, : len(begin)].double() for text in texts)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"{_where(model)}: its forward pass fails: {brief(error)}; give another model") from error
    most = 0.02 if any("expert" in name for name, _ in module.named_modules()) else 1e-3
    rounding = min(most, 100 * torch.finfo(module.dtype).eps)
    spread = (one - one.mean(1, keepdim=True)).square().mean().sqrt()
    if (one - other).square().mean().sqrt() > rounding * spread:  # false where they overflow, which is said of the site
        raise UsageError(f"{_where(model)}: it is not causal, tokens see later ones; give a causal language model")


def require_known(settings: Mapping[str, Any], default: transformers.PreTrainedConfig) -> None:
    """Settings of model.source.random that the config's class does not have would be without effect."""
    for key in settings:
        if key != "model_type" and not hasattr(default, key):
            close = difflib.get_close_matches(key, default.to_dict(), n=1)
            fix = f"did you mean {close[0]}?" if close else "leave it out"
            raise UsageError(f"model.source.random.{key}={settings[key]}: model_type {default.model_type} has no {key}; {fix}")


def _where(model: Mapping[str, Any]) -> str:
    hub = model["source"].get("hub")
    return f"model.source.hub={hub}" if hub else f"model={model['name']}"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
