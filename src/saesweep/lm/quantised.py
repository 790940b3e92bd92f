"""Quantised weights: of a config that says so, or others quantised while they are loaded (model.load.quantization_config).

transformers does it where the method's package and device are there, and skips methods that it does not know; here those are
refused, before a weight is loaded.
"""
import logging
from collections.abc import Mapping
from typing import Any

import transformers
from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

from saesweep.errors import UsageError, as_typed
from saesweep.lm.hub import brief, silence_transformers
from saesweep.lm.kinds import text_config

log = logging.getLogger(__name__)
COPY = "or give a dequantised copy"


def is_quantised(model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> bool:
    return bool(_asked(model) or _own(config))


def asked(model: Mapping[str, Any]) -> Any:
    """model.load.quantization_config as transformers takes it; None where it is not given."""
    return AutoQuantizationConfig.from_dict(dict(found)) if (found := _asked(model)) else None


def require_quantizer(key: str, model: Mapping[str, Any], config: transformers.PreTrainedConfig) -> None:
    """Raises UsageError where this machine cannot load weights quantised this way. `key`: names the model in a message."""
    if any(getattr(part, "compression_config", None) for part in (config, text_config(config))):
        raise UsageError(f"{key}: its weights are quantised in an old way (compression_config); give a dequantised copy")
    if not is_quantised(model, config):
        return
    own, wanted = _own(config), _asked(model)
    name = f"{key}: its weights are quantised ({_method(own)})" if own else f"model.load.quantization_config={wanted}"
    try:
        with silence_transformers():
            if not AutoHfQuantizer.supports_quant_method(own or wanted):
                raise ValueError("transformers does not know the method")
            used: Any = AutoHfQuantizer.merge_quantization_configs(own, asked(model)) if own else asked(model)
            AutoHfQuantizer.from_config(used, pre_quantized=bool(own)).validate_environment(device_map=None, weights_only=True)
    except Exception as error:
        raise UsageError(f"{name}: {brief(error)}; install what it needs, {COPY}") from error
    for option, value in wanted.items():
        if (kept := getattr(used, option, value)) != value:
            raise UsageError(f"model.load.quantization_config.{option}={as_typed(value)}: the weights were quantised with "
                             f"{option}={as_typed(kept)}; leave it out")
    log.info("%s: %s weights%s", model["name"], _method(used.to_dict()),
             ", dequantised" if getattr(used, "dequantize", False) else "")


def _asked(model: Mapping[str, Any]) -> dict[str, Any]:
    return dict((model.get("load") or {}).get("quantization_config") or {})


def _own(config: transformers.PreTrainedConfig) -> dict[str, Any]:
    found = (getattr(part, "quantization_config", None) for part in (config, text_config(config)))
    own = next(filter(None, found), {})
    return own if isinstance(own, dict) else own.to_dict()


def _method(config: Mapping[str, Any]) -> str:
    method = config.get("quant_method", "?")
    return str(getattr(method, "value", method))
