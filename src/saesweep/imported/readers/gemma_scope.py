"""Gemma Scope 1 (params.npz) and 2 (params.safetensors, config.json): JumpReLU without a pre-encoder bias, in raw units.

Which model and site an SAE is of stands in its path alone, in the first; in the second also in config.json, where there is one.
"""
from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from saesweep.imported.about import TRANSCODER, About
from saesweep.imported.fold import Original
from saesweep.imported.source import Source

NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
HOOKS_1 = {"res": "blocks.{}.hook_resid_post", "mlp": "blocks.{}.hook_mlp_out", "att": "blocks.{}.attn.hook_z"}
HOOKS_2 = {"resid_post": "blocks.{}.hook_resid_post", "mlp_out": "blocks.{}.hook_mlp_out", "attn_out": "blocks.{}.attn.hook_z"}
CONFIG = "config.json"


def read_1(source: Source, scale: float | None) -> tuple[About, Original]:
    """Raises UsageError."""
    if "transcoder" in source.place:
        raise source.refuse(source.weights, None, None, TRANSCODER)
    if "embedding" in source.place:
        raise source.refuse(source.weights, None, None, "it reads the token embeddings, which are no site; give one of a layer")
    named = re.search(r"gemma-scope-(\d+b-(?:pt|it))-(res|mlp|att)", source.place)
    found = source.tensors()
    source.require_unscaled(found)
    model = named and f"google/gemma-2-{named[1].removesuffix('-pt')}"
    about = About("Gemma Scope", "gemma_scope", model, _hook(source, HOOKS_1[named[2]] if named else None), None)
    return about, _original(source, found)


def read_2(source: Source, scale: float | None) -> tuple[About, Original]:
    """Raises UsageError."""
    config = source.json(CONFIG, required=False)
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise source.refuse(CONFIG, "architecture", architecture, "only jump_relu is known of this format")
    there, written = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    kind = next((kind for kind in ("transcoder", "clt", *HOOKS_2) if f"/{kind}" in source.place), None)
    if kind in ("transcoder", "clt") or (written and written != there):
        raise source.refuse(CONFIG if written else source.weights, None, None, TRANSCODER)
    found = source.tensors()
    if "affine_skip_connection" in found or found.get("w_dec", torch.empty(0, 0)).ndim != 2:
        raise source.refuse(source.weights, None, None, TRANSCODER)
    model = str(config["model_name"]).replace("-v3", "-3") if "model_name" in config else None
    named = re.search(r"gemma-scope-2-(\d+[mb]-(?:pt|it))", source.place)
    model = model or (named and f"google/gemma-3-{named[1]}")
    about = About("Gemma Scope 2", "gemma_scope_2", model, there or _hook(source, HOOKS_2.get(kind or "")), None)
    return about, _original(source, found)


def _hook(source: Source, form: str | None) -> str | None:
    layer = re.search(r"layer_(\d+)", source.place)
    return form.format(layer[1]) if form and layer else None


def _original(source: Source, found: Mapping[str, Tensor]) -> Original:
    named = {re.sub("^w_", "W_", name): tensor for name, tensor in found.items()}
    W_enc, W_dec, b_enc, b_dec, threshold = source.take(named, NAMES, ["scaling_factor"])
    return Original(W_enc.T, b_enc, W_dec, b_dec, threshold=threshold, pre_bias=False)
