"""sparsify: cfg.json and sae.safetensors in a folder with the name of the module whose output is read; TopK.

A ReLU comes before the TopK, which changes nothing: both leave the positive ones among the k largest.
"""
from __future__ import annotations

from saesweep.imported.about import TRANSCODER, About
from saesweep.imported.fold import Original
from saesweep.imported.source import ABOVE, Source

CFG = "cfg.json"


def read(source: Source, scale: float | None) -> tuple[About, Original]:
    """Raises UsageError."""
    cfg = source.json(CFG)
    for key in ("transcode", "skip_connection"):
        if cfg.get(key):
            raise source.refuse(CFG, key, "true", TRANSCODER)
    if (activation := cfg.get("activation", "topk")) != "topk":
        raise source.refuse(CFG, "activation", activation, "it takes the largest latent of a group; only topk can be measured")
    if cfg.get("signed"):
        raise source.refuse(CFG, "signed", "true", "its latents may be negative; only those that are not can be measured")
    if not isinstance(k := cfg.get("k"), int):
        raise source.refuse(CFG, "k", k, "a TopK SAE needs its number of active latents here")
    model = source.json(ABOVE, required=False).get("model")
    needed = ["encoder.weight", "W_dec", "encoder.bias", "b_dec"]
    W_enc_T, W_dec, b_enc, b_dec = source.take(source.tensors(), needed)
    hook = f"{source.folder.name}.output"
    return About("sparsify", "sparsify_topk", model, hook, None), Original(W_enc_T, b_enc, W_dec, b_dec, k=k)
