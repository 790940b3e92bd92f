"""Ten families of language models and encoders, with random weights: folders that save_pretrained has written, and a training
on all their sites."""
from pathlib import Path
from typing import Any

import model_folders
import transformers
import yaml
from model_folders import LLAMA, TOKENS
from omegaconf import OmegaConf
from small import CONF, job, train_group

from saesweep.model.__main__ import write as write_yaml

HEADS = {"head_dim": 16}
PLAIN = {key: LLAMA[key] for key in LLAMA if key != "num_key_value_heads"}
IDS = {"image_token_index": TOKENS + 1, "boi_token_index": TOKENS + 2, "eoi_token_index": TOKENS + 3}
TEXT = {**LLAMA, **HEADS, "vocab_size": TOKENS + 5, "sliding_window": 8, "initializer_range": 0.2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
          "patch_size": 14}
LLAMA_SITES = {"resid": ("model.layers.{layer}", 32), "mlp": ("model.layers.{layer}.mlp", 32),
               "attn": ("model.layers.{layer}.self_attn.o_proj", 32)}
ENCODER_SITES = {"resid": ("encoder.layer.{layer}", 32), "mlp": ("encoder.layer.{layer}.output.dense", 32),
                 "attn": ("encoder.layer.{layer}.attention.output.dense", 32)}
AFTER_NORM = ("model.layers.{layer}.post_feedforward_layernorm", 32)
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, int]]]] = {  # model_type, sizes; of each site module, d_in
    "GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64}, {
        "resid": ("transformer.h.{layer}", 32), "mlp": ("transformer.h.{layer}.mlp", 32),
        "attn": ("transformer.h.{layer}.attn.c_proj", 32)}),
    "GPT-NeoX": ("gpt_neox", PLAIN, {
        "resid": ("gpt_neox.layers.{layer}", 32), "mlp": ("gpt_neox.layers.{layer}.mlp", 32),
        "attn": ("gpt_neox.layers.{layer}.attention.dense", 32)}),
    "Llama": ("llama", LLAMA, LLAMA_SITES),
    "Qwen3": ("qwen3", {**LLAMA, "head_dim": 24}, LLAMA_SITES | {"attn": (LLAMA_SITES["attn"][0], 48)}),
    "Gemma 3": ("gemma3_text", {**LLAMA, **HEADS, "sliding_window": 8}, LLAMA_SITES | {"mlp": AFTER_NORM}),
    "Gemma 3, multimodal": ("gemma3", {"text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 4, **IDS}, {
        site: (module.replace("model.", "model.language_model."), d_in)
        for site, (module, d_in) in (LLAMA_SITES | {"mlp": AFTER_NORM}).items()}),
    "Mixtral": ("mixtral", {**LLAMA, "num_local_experts": 4}, LLAMA_SITES),
    "Mamba": ("mamba", {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 3, "pad_token_id": 1}, {
        "resid": ("backbone.layers.{layer}", 32)}),
    "BERT": ("bert", PLAIN, ENCODER_SITES),
    "ESM": ("esm", {**PLAIN, "pad_token_id": 1, "mask_token_id": 1, "position_embedding_type": "rotary"}, ENCODER_SITES),
    "OLMo 2": ("olmo2", LLAMA, LLAMA_SITES | {"mlp": AFTER_NORM}),
    "Phi": ("phi", PLAIN, LLAMA_SITES | {"attn": ("model.layers.{layer}.self_attn.dense", 32)}),
}
ENCODERS = ("BERT", "ESM")


def write(name: str, folder: Path) -> Path:
    """The folder of the model."""
    model_type, sizes, _ = FAMILIES[name]
    auto = transformers.AutoModelForMaskedLM if name in ENCODERS else transformers.AutoModelForCausalLM
    return model_folders.write(folder / "model", model_type, auto=auto, **sizes)


def described(folder: Path) -> dict[str, Any]:
    """The model, from the file that `saesweep model` writes for its folder."""
    write_yaml(str(folder), "small", folder=folder / "conf")
    return yaml.safe_load((folder / "conf/small.yaml").read_text())


def base(text: str, *more: str) -> dict[str, Any]:
    return job(text, "arch=topk", "context=16", *more)


def trained(settings: dict[str, Any], model: dict[str, Any], out: Path) -> dict[str, Any]:
    """The metrics of an SAE at each site of the middle block, trained together, or the error."""
    sites = {site: OmegaConf.to_container(OmegaConf.load(CONF / f"site/{site}.yaml")) for site in model["sites"]}
    jobs = [settings | {"model": model, "site": site, "layer": model["layer"]} for site in sites.values()]
    return dict(zip(sites, train_group(jobs, [out / site for site in sites]), strict=True))
