"""A small copy of a language model, of its class with random weights, that runs in milliseconds."""
from typing import Any

import torch
import transformers

from saesweep.lm.kinds import auto_class, text_config, without_quantisation

LAYERS = 8  # at most: hybrid models have an attention in some only
LARGEST = {  # values of the copy where those of the config are larger
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "shared_expert_intermediate_size": 48, "rotary_dim": 8,
}
NOISE = 0.1  # added to all weights, so that no tensor is zero, and none equals another by its initialisation


def small(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    """The copy, in eval mode. Raises what transformers raises where its sizes cannot be had."""
    config = without_quantisation(config)
    text = text_config(config)
    for part in [text, *(getattr(config, name) for name in getattr(config, "sub_configs", {}))]:
        if part is not None:
            _shrink(part, LAYERS if part is text else 1)
    _keep_ids(config, text.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = auto_class(config).from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(NOISE * torch.randn_like(parameter))
    return module


def _shrink(config: Any, most_layers: int) -> None:
    known = {**vars(config), **config.attribute_map}
    layers = getattr(config, "num_hidden_layers", 0)
    grouped = getattr(config, "num_key_value_heads", None) not in (None, getattr(config, "num_attention_heads", None))
    for key, most in LARGEST.items():
        if key in known and type(value := getattr(config, key)) is int:
            setattr(config, key, min(value, most))
    if not grouped and "num_key_value_heads" in known and config.num_key_value_heads is not None:
        config.num_key_value_heads = config.num_attention_heads
    if layers > most_layers:
        config.num_hidden_layers = most_layers
        for key, value in list(vars(config).items()):  # such as layer_types
            if isinstance(value, list) and len(value) == layers:
                setattr(config, key, value[:most_layers])
    _keep_ids(config, getattr(config, "vocab_size", None))


def _keep_ids(config: Any, vocabulary: int | None) -> None:
    """Ids of special tokens stay within the vocabulary, its last ones."""
    for key, value in list(vars(config).items()):
        if vocabulary and key.endswith(("_token_id", "_token_index")) and type(value) is int:
            setattr(config, key, min(value, vocabulary - 1))
