"""SAELens: cfg.json and sae_weights.safetensors, with `metadata` since version 6 and flat before."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from saesweep.imported.about import PER_TOKEN, TRANSCODER, About
from saesweep.imported.fold import Original, gated
from saesweep.imported.source import Source

ENCODERS = {  # tensors beside W_enc, W_dec and b_dec, by architecture
    "standard": ["b_enc"], "topk": ["b_enc"], "jumprelu": ["b_enc", "threshold"], "gated": ["b_gate", "r_mag", "b_mag"],
}
ONE_FACTOR, WHITENING = "expected_average_only_in", "covariance_whitening"
CFG = "cfg.json"


def read(source: Source, scale: float | None) -> tuple[About, Original]:
    """scale: the factor of `expected_average_only_in` where no file has it. Raises UsageError."""
    cfg = source.json(CFG)
    of_training: Mapping[str, Any] = cfg.get("metadata") or cfg
    architecture, k = _architecture(source, cfg)
    if (head := of_training.get("hook_head_index")) is not None:
        raise source.refuse(CFG, "hook_head_index", head, "it reads one attention head; give an SAE of all heads together")
    tokens = source.json("runner_cfg.json", required=False).get("training_tokens") or cfg.get("training_tokens")
    about = About("saesweep" if "saesweep_version" in of_training else "SAELens", f"saelens_{architecture}",
                  of_training.get("model_name"), of_training.get("hook_name") or of_training.get("hook_point"), tokens)
    factor, found = _factor(source, cfg, scale), source.tensors()
    source.require_unscaled(found)
    if "log_threshold" in found:  # of a training with an older version
        found["threshold"] = found.pop("log_threshold").float().exp()
    W_enc, W_dec, b_dec, *rest = source.take(found, ["W_enc", "W_dec", "b_dec", *ENCODERS[architecture]], ["scaling_factor"])
    same = {"W_dec": W_dec, "b_dec": b_dec, "pre_bias": cfg.get("apply_b_dec_to_input", True), "a": factor, "c": factor}
    if architecture == "gated":
        W_enc_T, b_enc, threshold = gated(W_enc.T, *rest)
        return about, Original(W_enc_T, b_enc, threshold=threshold, **same)
    if architecture == "topk":
        return about, Original(W_enc.T, rest[0], k=k, by_norm=bool(cfg.get("rescale_acts_by_decoder_norm")), **same)
    threshold = rest[1] if architecture == "jumprelu" else torch.zeros_like(rest[0])
    return about, Original(W_enc.T, rest[0], threshold=threshold, **same)


def _architecture(source: Source, cfg: Mapping[str, Any]) -> tuple[str, int | None]:
    """And k, of TopK."""
    architecture = cfg.get("architecture", "standard")
    activation = cfg.get("activation_fn_str") or cfg.get("activation_fn") or "relu"
    k = cfg.get("k") or (cfg.get("activation_fn_kwargs") or {}).get("k")
    if "transcoder" in architecture:
        raise source.refuse(CFG, "architecture", architecture, TRANSCODER)
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    if architecture not in ENCODERS:
        why = f"only {', '.join(ENCODERS)} can be measured; a finished training of BatchTopK or Matryoshka is saved as jumprelu"
        raise source.refuse(CFG, "architecture", architecture, why)
    if activation not in ("relu", "topk"):
        raise source.refuse(CFG, "activation_fn_str", activation, "only relu and topk can be measured")
    if architecture == "topk" and not isinstance(k, int):
        raise source.refuse(CFG, "k", k, "a TopK SAE needs its number of active latents here")
    return architecture, k if architecture == "topk" else None


def _factor(source: Source, cfg: Mapping[str, Any], scale: float | None) -> float:
    kind = cfg.get("normalize_activations") or "none"
    kind = ONE_FACTOR if kind is True else kind  # in old files true or false
    if kind == "none":
        return 1.0
    if kind == WHITENING:
        why = "its whitening is not in its weights yet; give the SAE of the end of its training"
        raise source.refuse(CFG, "normalize_activations", kind, why)
    if kind != ONE_FACTOR:
        raise source.refuse(CFG, "normalize_activations", kind, PER_TOKEN)
    found = scale or source.json("activation_scaler.json", required=False).get("scaling_factor")
    if not found:
        why = "its activations were multiplied by a factor that none of its files has; give it as --scale (norm_scaling_factor)"
        raise source.refuse(CFG, "normalize_activations", kind, why)
    return float(found)
