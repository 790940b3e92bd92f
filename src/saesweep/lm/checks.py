"""Checks of a language model: of its config before the weights are loaded, of the weights and the module after.

transformers initialises missing weights at random and only logs it; here they are refused.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn

from saesweep.errors import UsageError
from saesweep.lm import kinds, quantised
from saesweep.lm.hub import brief
from saesweep.lm.kinds import text_config
from saesweep.runtime.memory import out_of_memory

BEGIN = [0, 1, 2, 3] * 2  # ids of tokens


def max_positions(config: transformers.PreTrainedConfig) -> int | None:
    """The longest context, in tokens, that the config allows; None where it sets no limit."""
    found = (getattr(text_config(config), key, None) for key in ("max_position_embeddings", "max_seq_len"))
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def checked_config(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    """The config. Raises UsageError unless it is of a model that can be loaded, with model.layers blocks."""
    require_loadable(model, config)
    layers = layers_of(config)
    if layers != model["layers"]:
        raise UsageError(f"model.layers={model['layers']}: {model['name']} has {layers}; correct conf/model")
    return config


def layers_of(config: transformers.PreTrainedConfig) -> int | None:
    return getattr(text_config(config), "num_hidden_layers", None)


def require_loadable(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> None:
    """Raises UsageError unless transformers implements it, as a causal language model or an encoder, and what model.load asks
    for is there."""
    where = _key(model)
    if kinds.auto_class(config).__name__ in (getattr(config, "auto_map", None) or {}):
        raise UsageError(f"{where}: its config needs code of its own (auto_map), and no code of a repository is run; give a "
                         "model that transformers implements, or a copy without auto_map if the model is the same")
    if not kinds.is_known(config):
        raise UsageError(f"{where}: model_type {config.model_type} is not a causal language model of transformers, nor an "
                         "encoder; give one, such as those of conf/model")
    quantised.require_quantizer(where, model, config)
    if (model.get("load") or {}).get("attn_implementation") == "sdpa" and kinds.soft_capped(config):
        raise UsageError("model.load.attn_implementation=sdpa: leaves out the soft cap of this model's attention; write eager")


def require_tokens(model: Mapping[str, Any], config: transformers.PreTrainedConfig, ids: Iterable[int]) -> None:
    """Raises UsageError where a token id of the tokenizer has no row in the embedding, which may have more rows (padding)."""
    ids, rows = set(ids), getattr(text_config(config), "vocab_size", None)
    if rows is not None and max(ids) >= rows:
        raise UsageError(f"{_key(model)}: its tokenizer has {len(ids):,} tokens with ids up to {max(ids):,}, but its "
                         f"embedding {rows:,} rows; give the tokenizer that the model was trained with")


def require_weights(model: Mapping[str, Any], module: nn.Module, found: Mapping[str, Any]) -> None:
    """Raises UsageError unless files and module have the same tensors. `found`: the `loading_info` of transformers, in which
    tied weights do not count as missing. Heads of an encoder do not count either."""
    words = {"missing_keys": "lacks", "unexpected_keys": "has no place for", "mismatched_keys": "has in another shape"}
    wrong, without = [], heads_of(module, found["unexpected_keys"])
    for kind, what in words.items():
        keys = sorted(key if isinstance(key, str) else key[0] for key in found[kind])
        if keys := [key for key in keys if key.split(".")[0] not in without]:
            wrong.append(f"{what} {_first_three(keys)}")
    wrong += [brief(RuntimeError(message)) for message in found["error_msgs"][:1]]
    if wrong:
        raise UsageError(f"{_key(model)}: its files are not the weights of its config's model, which {'; '.join(wrong)}; "
                         "give a folder written by save_pretrained of the whole model: missing weights would be random")


def heads_of(module: nn.Module, unexpected: Iterable[str]) -> set[str]:
    """The first names of tensors that an encoder is used without: those of its pooler, and of heads, which lie beside it."""
    if not isinstance(module, transformers.PreTrainedModel) or kinds.is_causal(module.config):
        return set()
    own = {module.base_model_prefix, *(name for name, _ in module.named_children())}
    return {kinds.POOLER} | {key.split(".")[0] for key in unexpected} - own


def require_finite(model: Mapping[str, Any], module: nn.Module) -> None:
    """Raises UsageError for weights that are NaN or infinite; their minimum and maximum show it, as aminmax passes NaN on."""
    ends = {name: torch.stack((p.float() if p.element_size() == 1 else p).aminmax())  # of 8 bits: no aminmax
            for name, p in module.named_parameters() if p.is_floating_point() and p.numel()}
    if bad := [name for name, found in ends.items() if not found.isfinite().all()]:
        dtype = str(module.dtype).removeprefix("torch.")
        raise UsageError(f"{_key(model)}: weights are NaN or infinite in {dtype}: {_first_three(bad)}; download it again, or "
                         "set model.dtype=float32 if they exceed the range of float16")


def require_device(model: Mapping[str, Any], module: nn.Module, device: str) -> None:
    """Raises UsageError where model.load.device_map puts weights elsewhere: activations are read and replaced on one device."""
    if not (asked := (model.get("load") or {}).get("device_map")):
        return
    wanted = torch.empty(0, device=device).device
    if others := {str(parameter.device) for parameter in module.parameters() if parameter.device != wanted}:
        raise UsageError(f"model.load.device_map={asked}: puts weights on {', '.join(sorted(others))}; give the device of the "
                         f"trainer, {wanted}")


def require_causal(model: Mapping[str, Any], module: nn.Module) -> None:
    """Raises UsageError where the logits of a token depend on later tokens: blocks are padded at their end, without a mask."""
    if _depends_on_the_end(model, module, lambda text: module(input_ids=text, use_cache=False).logits):
        raise UsageError(f"{_key(model)}: it is not causal, tokens see later ones; give a causal language model")


def require_masking(model: Mapping[str, Any], module: nn.Module) -> None:
    """Raises UsageError where an encoder's tokens depend on padding, which is masked."""
    def states(text: Int[Tensor, "1 pos"]) -> Float[Tensor, "1 pos d_model"]:
        mask = (torch.arange(text.shape[1], device=text.device) < len(BEGIN)).long()[None]
        return module(input_ids=text, attention_mask=mask)[0]

    if _depends_on_the_end(model, module, states):
        raise UsageError(f"{_key(model)}: its tokens depend on masked padding; give an encoder that honours attention_mask")


@torch.no_grad()
def _depends_on_the_end(model: Mapping[str, Any], module: nn.Module, outputs: Callable[[Tensor], Tensor]) -> bool:
    """Whether the outputs at the first tokens of a text depend on later tokens.

    Two inputs of 16 tokens share their first 8, for which a causal model does the same arithmetic: the outputs may differ by
    rounding only. Mixture-of-experts models batch these tokens with others, which rounds more.
    """
    parameter = next(module.parameters())
    texts = torch.tensor([[BEGIN + [0, 1] * 4], [BEGIN + [2, 3] * 4]], device=parameter.device)
    try:
        one, other = (outputs(text)[:, : len(BEGIN)].double() for text in texts)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"{_key(model)}: its forward pass fails: {brief(error)}; give another model") from error
    most = 0.02 if any("expert" in name for name, _ in module.named_modules()) else 1e-3
    rounding = min(most, 100 * torch.finfo(parameter.dtype).eps)
    spread = (one - one.mean(1, keepdim=True)).square().mean().sqrt()
    return bool((one - other).square().mean().sqrt() > rounding * spread)  # false for NaN, which the statistics report


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
