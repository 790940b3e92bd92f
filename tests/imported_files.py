"""Files of small SAEs in the formats of others, with the keys that these document."""
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

D, F, K = 6, 20, 3


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def numbers(norms: bool = True) -> dict:
    """W_enc [D, F], W_dec [F, D] with rows of norms other than one unless said, biases, thresholds that are 0 or more."""
    W_dec = drawn(F, D, seed=1)
    if not norms:
        W_dec /= W_dec.norm(dim=1, keepdim=True)
    return {"W_enc": drawn(D, F, seed=2), "W_dec": W_dec, "b_enc": drawn(F, seed=3, scale=0.3),
            "b_dec": drawn(D, seed=4, scale=0.5), "threshold": drawn(F, seed=5, scale=0.5).abs()}


X = drawn(300, D, seed=9) + 0.7


def saelens(folder: Path, tensors: dict, **cfg) -> Path:
    metadata = {"model_name": "gemma-3-270m", "hook_name": "blocks.1.hook_resid_post", "sae_lens_version": "6.54.12"}
    folder.mkdir(exist_ok=True, parents=True)
    said = {"architecture": "standard", "d_in": D, "d_sae": F, "apply_b_dec_to_input": True, "normalize_activations": "none",
            "metadata": metadata} | cfg
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in said.items() if value is not ...}))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def of(tensors: dict, *names: str) -> dict:
    return {name: tensors[name] for name in ("W_enc", "W_dec", "b_dec", *names)}


def gemma_scope(folder: Path, n: dict, second: bool, **more) -> Path:
    folder.mkdir(parents=True)
    if not second:
        np.savez(folder / "params.npz", **{key: value.numpy() for key, value in (n | more).items()})
        return folder
    lower = {key.lower() if key.startswith("W") else key: value.contiguous() for key, value in (n | more).items()}
    save_file(lower, folder / "params.safetensors")
    return folder


def dictionary(folder: Path, kind: str, tensors: dict, buffer: dict | None = None, **trainer) -> Path:
    folder.mkdir(exist_ok=True)
    said = {"trainer": {"dict_class": kind, "lm_name": "EleutherAI/pythia-70m-deduped", "layer": 3,
                        "submodule_name": "resid_post_layer_3"} | trainer, "buffer": buffer or {}}
    (folder / "config.json").write_text(json.dumps(said))
    torch.save(tensors, folder / "ae.pt")
    return folder


def linear(n: dict) -> dict:
    return {"encoder.weight": n["W_enc"].T.contiguous(), "decoder.weight": n["W_dec"].T.contiguous()}


def sparsify(folder: Path, n: dict, tensors: dict | None = None, **cfg) -> Path:
    folder.mkdir(parents=True)
    said = {"activation": "topk", "expansion_factor": 32, "num_latents": 0, "k": K, "normalize_decoder": True,
            "transcode": False, "skip_connection": False, "d_in": D} | cfg
    (folder / "cfg.json").write_text(json.dumps(said))
    (folder.parent / "config.json").write_text(json.dumps({"model": "HuggingFaceTB/SmolLM2-135M"}))
    save_file({"encoder.weight": n["W_enc"].T.contiguous(), "encoder.bias": n["b_enc"], "W_dec": n["W_dec"],
               "b_dec": n["b_dec"]} | (tensors or {}), folder / "sae.safetensors")
    return folder


def llama_scope(folder: Path, n: dict, **said) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    said = {"d_model": D, "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": 0.3, "top_k": 50,
            "hook_point_in": "blocks.8.hook_resid_post", "hook_point_out": "blocks.8.hook_resid_post",
            "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 6.25, "out": 6.25},
            "sparsity_include_decoder_norm": True, "apply_decoder_bias_to_pre_encoder": False} | said
    (folder / "hyperparams.json").write_text(json.dumps({key: value for key, value in said.items() if value is not ...}))
    tensors = linear(n) | {"encoder.bias": n["b_enc"], "decoder.bias": n["b_dec"]}
    tensors = {key: value.bfloat16() for key, value in tensors.items()}
    save_file(tensors, folder / "checkpoints/final.safetensors")
    return folder


def qwen_scope(folder: Path, n: dict) -> Path:
    folder.mkdir(parents=True)
    torch.save({"W_enc": n["W_enc"].T.contiguous(), "W_dec": n["W_dec"].T.contiguous(), "b_enc": n["b_enc"],
                "b_dec": n["b_dec"]}, folder / "layer4.sae.pt")
    return folder
