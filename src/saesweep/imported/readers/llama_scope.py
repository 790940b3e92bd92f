"""Llama Scope: hyperparams.json and checkpoints/final.safetensors; JumpReLU with one threshold, no pre-encoder bias.

Activations were divided by their mean norm over the data and multiplied by sqrt(d). The threshold alone is in raw units, and
is compared with pi_i ||W_dec,i|| where `sparsity_include_decoder_norm` says so; at their k of 50 L0 must come out near 50.
"""
from __future__ import annotations

import torch

from saesweep.imported.about import PER_TOKEN, TRANSCODER, About
from saesweep.imported.fold import Original
from saesweep.imported.source import Source

FILE = "hyperparams.json"
NORMS = "dataset_average_activation_norm"


def read(source: Source, scale: float | None) -> tuple[About, Original]:
    """Raises UsageError."""
    said = source.json(FILE)
    there, written = said.get("hook_point_in"), said.get("hook_point_out")
    if written and written != there:
        raise source.refuse(FILE, "hook_point_out", written, TRANSCODER)
    if (act := said.get("act_fn")) != "jumprelu":
        raise source.refuse(FILE, "act_fn", act, "only jumprelu is known of this format")
    if said.get("use_glu_encoder"):
        raise source.refuse(FILE, "use_glu_encoder", "true", "its encoder has a second matrix, which an SAE here has not")
    if (kind := said.get("norm_activation", "dataset-wise")) != "dataset-wise":
        raise source.refuse(FILE, "norm_activation", kind, PER_TOKEN)
    norms = said.get(NORMS) or {}
    if not all(isinstance(norms.get(key), int | float) and norms[key] > 0 for key in ("in", "out")):
        raise source.refuse(FILE, NORMS, norms, "the mean norms `in` and `out` are needed, as numbers above 0")
    needed = ["encoder.weight", "decoder.weight", "encoder.bias", "decoder.bias"]
    W_enc_T, W_dec_T, b_enc, b_dec = source.take(source.tensors(), needed)
    a, c = (len(b_dec) ** 0.5 / norms[key] for key in ("in", "out"))
    threshold = torch.full_like(b_enc, a * float(said.get("jump_relu_threshold", 0.0)))
    model = "meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in source.place else None
    return About("Llama Scope", "llama_scope", model, there, None), Original(
        W_enc_T, b_enc, W_dec_T.T, b_dec, threshold=threshold, a=a, c=c,
        pre_bias=bool(said.get("apply_decoder_bias_to_pre_encoder")),
        by_norm=bool(said.get("sparsity_include_decoder_norm", True)),
    )
