"""dictionary_learning: ae.pt, tensors by name, and config.json, whose `trainer.dict_class` says how they are used.

Saved in raw units, whether or not the training normalised its activations.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saesweep.imported.about import TRANSCODER, About
from saesweep.imported.fold import Original, gated
from saesweep.imported.source import Source

CURVES = {"AutoEncoder": "relu", "AutoEncoderNew": "relu", "GatedAutoEncoder": "gated", "JumpReluAutoEncoder": "jumprelu",
          "AutoEncoderTopK": "topk", "BatchTopKSAE": "batchtopk", "MatryoshkaBatchTopKSAE": "matryoshka"}
LINEAR = ["encoder.weight", "decoder.weight"]
CONFIG = "config.json"


def read(source: Source, scale: float | None) -> tuple[About, Original]:
    """Raises UsageError."""
    config = source.json(CONFIG)
    trainer, buffer = config.get("trainer") or {}, config.get("buffer") or {}
    kind = trainer.get("dict_class")
    if kind not in CURVES:
        raise source.refuse(CONFIG, "trainer.dict_class", kind, f"only {', '.join(CURVES)} can be measured")
    if (io := buffer.get("io", "out")) == "in_and_out":
        raise source.refuse(CONFIG, "buffer.io", io, TRANSCODER)
    found = source.tensors()
    if "ae" in found and not isinstance(found["ae"], Tensor):
        why = "is the state of a training that has not ended; save its entry `ae` alone, in raw units, as ae.pt"
        raise source.refuse(source.weights, None, None, why)
    steps, batch = trainer.get("steps"), buffer.get("out_batch_size")
    tokens = steps * batch if isinstance(steps, int) and isinstance(batch, int) else None
    about = About("dictionary_learning", f"dictionary_learning_{CURVES[kind]}", trainer.get("lm_name"), _hook(trainer), tokens)
    return about, _original(source, kind, found, trainer)


def _hook(trainer: Mapping[str, Any]) -> str | None:
    """The residual stream is called resid_post_layer_9, or is not named."""
    layer, name = trainer.get("layer"), trainer.get("submodule_name") or ""
    if layer is not None and (not name or name.startswith("resid_post")):
        return f"blocks.{layer}.hook_resid_post"
    return name or None


def _original(source: Source, kind: str, found: dict[str, Any], trainer: Mapping[str, Any]) -> Original:
    if kind == "AutoEncoder":
        W_enc_T, W_dec_T, b_enc, b_dec = source.take(found, [*LINEAR, "encoder.bias", "bias"])
        return Original(W_enc_T, b_enc, W_dec_T.T, b_dec, threshold=torch.zeros_like(b_enc))
    if kind == "AutoEncoderNew":
        W_enc_T, W_dec_T, b_enc, b_dec = source.take(found, [*LINEAR, "encoder.bias", "decoder.bias"])
        return Original(W_enc_T, b_enc, W_dec_T.T, b_dec, threshold=torch.zeros_like(b_enc), pre_bias=False)
    if kind == "GatedAutoEncoder":
        W_gate_T, W_dec_T, *rest, b_dec = source.take(found, [*LINEAR, "gate_bias", "r_mag", "mag_bias", "decoder_bias"])
        W_enc_T, b_enc, threshold = gated(W_gate_T, *rest)
        return Original(W_enc_T, b_enc, W_dec_T.T, b_dec, threshold=threshold)
    if kind == "JumpReluAutoEncoder":
        W_enc, W_dec, b_enc, b_dec, threshold = source.take(found, ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
        return Original(W_enc.T, b_enc, W_dec, b_dec, threshold=threshold, pre_bias=False)
    if kind == "MatryoshkaBatchTopKSAE":
        W_enc, W_dec, b_enc, b_dec = source.take(found, ["W_enc", "W_dec", "b_enc", "b_dec"], ["k", "threshold", "group_sizes"])
        return Original(W_enc.T, b_enc, W_dec, b_dec, threshold=_one_threshold(source, found, b_enc))
    W_enc_T, W_dec_T, b_enc, b_dec = source.take(found, [*LINEAR, "encoder.bias", "b_dec"], ["k", "threshold"])
    if kind == "BatchTopKSAE":
        return Original(W_enc_T, b_enc, W_dec_T.T, b_dec, threshold=_one_threshold(source, found, b_enc))
    k = found.get("k", trainer.get("k"))  # the threshold in this file is not what it encodes with
    return Original(W_enc_T, b_enc, W_dec_T.T, b_dec, k=int(k) if k is not None else 0)


def _one_threshold(source: Source, found: Mapping[str, Any], b_enc: Tensor) -> Tensor:
    """Of all latents: what the latents of a batch are chosen by once there is no batch."""
    value = float(found.get("threshold", -1.0))
    if value < 0:
        raise source.refuse(source.weights, "threshold", value, "it is not set before `threshold_start_step` of the training; "
                                                                "give an SAE of a later step")
    return torch.full_like(b_enc, value)
