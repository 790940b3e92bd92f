"""The exported SAE: cfg.json and sae_weights.safetensors in the format of SAELens 6."""
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import imported, own_activations
from saesweep.lm.hooks import HookPoint, hook_point
from saesweep.runtime import atomic
from saesweep.storage import files

IN_SAELENS = ("standard", "gated", "jumprelu", "topk", "transcoder", "skip_transcoder", "jumprelu_transcoder",
              "jumprelu_skip_transcoder")  # its architectures, of those that are written here
FORMAT = "6.0.0"  # version of SAELens; without one it takes the file for an old one and drops the metadata


def save(folder: Path, sae: SparseAutoencoder, cfg: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
    """Save a folded SAE, which takes raw activations."""
    write_tensors(folder / Path(files.WEIGHTS).name, sae.exported())
    atomic.write(folder / Path(files.CFG).name, json.dumps(sae_lens_config(sae, cfg, metrics), indent=1))


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, whole or not at all, as readable as its folder."""
    with atomic.draft(file) as draft:
        save_file(tensors, draft)
        atomic.share(draft)


def encoded(
    saved_as: str, tensors: Mapping[str, Tensor], k: int, x: Float[Tensor, "batch d_in"]
) -> Float[Tensor, "batch d_sae"] | None:
    """The latents that SAELens computes from the exported tensors; None for an architecture it does not have.

    tensors: as exported(). k: number of active latents, of TopK.
    """
    pi = (x - tensors["b_dec"]) @ tensors["W_enc"]
    if saved_as == "gated":
        return torch.relu(pi * tensors["r_mag"].exp() + tensors["b_mag"]) * (pi + tensors["b_gate"] > 0)
    pi = pi + tensors["b_enc"]
    if saved_as == "jumprelu":
        return torch.relu(pi) * (pi > tensors["threshold"])
    if saved_as == "topk":
        return torch.relu(pi) * (pi >= pi.topk(k).values[:, -1:])
    return torch.relu(pi) if saved_as == "standard" else None


def architecture(sae: SparseAutoencoder) -> str:
    """Its name in SAELens; of a transcoder that SAELens does not have, a name that it refuses, such as topk_transcoder."""
    if not sae.transcodes:
        return sae.saved_as
    kind = "transcoder" if sae.W_skip is None else "skip_transcoder"
    return kind if sae.saved_as == "standard" else f"{sae.saved_as}_{kind}"


def sae_lens_config(sae: SparseAutoencoder, cfg: Mapping[str, Any], metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """The content of cfg.json."""
    dead, source = metrics["dead"], imported(cfg)  # of an SAE that others have trained the dead latents are not known
    hook_name, point = _hook_name(cfg, "hook_name"), hook_point(cfg["model"], cfg["site"]["name"], cfg["layer"])
    of_target = {}
    if point.target is not None:
        of_target = {"hook_name_out": _hook_name(cfg, "hook_name_out"), "hf_hook_name_out": _hf_hook_name(point.target)}
    special = {"k": sae.sparsity, "rescale_acts_by_decoder_norm": False} if sae.saved_as == "topk" else {}
    return {
        "architecture": architecture(sae), "d_in": sae.d_in, "d_sae": sae.d_sae, **special,
        **({"d_out": sae.d_out} if sae.transcodes else {}),
        "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": not sae.transcodes, "normalize_activations": "none",
        "reshape_activations": "hook_z" if hook_name.endswith("hook_z") else "none",
        "metadata": {
            "model_name": cfg["model"]["source"].get("hub") or cfg["model"].get("hub_name") or cfg["model"]["name"],
            "hook_name": hook_name,
            "hook_head_index": None,
            "hf_hook_name": _hf_hook_name(point),
            **of_target,
            "context_size": cfg["context"],
            "dataset_path": None if own_activations(cfg) else cfg["text"].get("repository") or cfg["text"]["name"],
            "prepend_bos": bool(cfg["model"].get("bos", False)),
            "exclude_special_tokens": True,
            "seqpos_slice": [None],
            "model_from_pretrained_kwargs": {},
            "neuronpedia_id": None,
            "training_architecture": cfg["arch"]["name"],
            "sae_lens_version": FORMAT,
            "saesweep_version": version("saesweep"),
            "l0": metrics["l0"],
            "num_dead_features": None if dead is None else round(dead * sae.d_sae),
            **({} if source is None else {"dataset_path": None, "imported_from": source["source"]}),
            **({"init_from": cfg["init_from"]} if cfg.get("init_from") else {}),
        },
    }


def _hook_name(cfg: Mapping[str, Any], key: str) -> str:
    return cfg["site"][key].format(layer=cfg["layer"])


def _hf_hook_name(point: HookPoint) -> str:
    """The module whose output is the tensor; of an input, the enclosing module."""
    return point.module if point.tensor == "output" else point.module.rpartition(".")[0]
