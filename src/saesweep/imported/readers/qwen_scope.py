"""Qwen Scope: layerN.sae.pt, tensors by name; TopK without a pre-encoder bias. The rest is in the name of its repository."""
from __future__ import annotations

import re

from saesweep.imported.about import About
from saesweep.imported.fold import Original
from saesweep.imported.source import Source


def read(source: Source, scale: float | None) -> tuple[About, Original]:
    """Raises UsageError."""
    k, layer = re.search(r"-L0_(\d+)", source.place), re.search(r"layer(\d+)\.sae\.pt$", source.place)
    if k is None:
        why = "its k stands only in the name of its repository (SAE-Res-..-L0_50): put the file in a folder of that name"
        raise source.refuse(source.weights, None, None, why)
    model = re.search(r"SAE-Res-(.+?)-W\d+K", source.place)
    W_enc_T, W_dec_T, b_enc, b_dec = source.take(source.tensors(), ["W_enc", "W_dec", "b_enc", "b_dec"])
    hook = layer and f"blocks.{layer[1]}.hook_resid_post"
    about = About("Qwen Scope", "qwen_scope", model and f"Qwen/{model[1]}", hook, None)
    return about, Original(W_enc_T, b_enc, W_dec_T.T, b_dec, k=int(k[1]), pre_bias=False)
