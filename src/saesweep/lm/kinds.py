"""What transformers makes of a config: a causal language model, or an encoder such as BERT and ESM, which reads both ways."""
import copy
from typing import Any

import torch
import transformers
from torch import nn

POOLER = "pooler"  # of an encoder, over whole texts: nothing that is read here depends on it, and many files lack it


def text_config(config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    """The config of the text decoder: of a multimodal model its part, else the config itself."""
    return config.get_text_config(decoder=True)


def is_causal(config: transformers.PreTrainedConfig) -> bool:
    """Whether a token is predicted from those before it; an encoder predicts no next token, and is loaded without a head."""
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and type(config) in transformers.MODEL_MAPPING
    return not masked or bool(getattr(config, "is_decoder", False) or getattr(config, "causal", False))


def auto_class(config: transformers.PreTrainedConfig) -> Any:
    """The class of transformers that loads the model."""
    return transformers.AutoModelForCausalLM if is_causal(config) else transformers.AutoModel


def is_known(config: transformers.PreTrainedConfig) -> bool:
    """Whether transformers has a causal language model or an encoder of this config."""
    return not config.is_encoder_decoder and (not is_causal(config) or type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING)


def attention_implementation(config: transformers.PreTrainedConfig) -> str:
    """sdpa where the class supports it, else eager. Also eager where attention logits are soft-capped: sdpa leaves the cap
    out, in transformers 5.18 without a warning."""
    mapping = transformers.MODEL_FOR_CAUSAL_LM_MAPPING if is_causal(config) else transformers.MODEL_MAPPING
    found = mapping[type(config)]
    model_class = found[0] if isinstance(found, tuple) else found
    return "sdpa" if getattr(model_class, "_supports_sdpa", False) and not soft_capped(config) else "eager"


def soft_capped(config: transformers.PreTrainedConfig) -> bool:
    return bool(getattr(text_config(config), "attn_logit_softcapping", None))


def without_memory(config: transformers.PreTrainedConfig) -> nn.Module:
    """The model, with the shapes of its weights alone. Raises whatever a model class raises for its config."""
    with torch.device("meta"):
        return auto_class(config).from_config(without_quantisation(config))


def without_quantisation(config: transformers.PreTrainedConfig) -> Any:
    """A copy that describes the model in its own dtype."""
    config = copy.deepcopy(config)
    for part in (config, text_config(config)):
        part.__dict__.pop("quantization_config", None)
    return config
