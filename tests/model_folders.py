"""Folders of small models as save_pretrained writes them, with a byte tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from small import CONF
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}
SPECIAL = ("<|endoftext|>", "<pad>")
TOKENS = 256 + len(SPECIAL)


def write(
    folder: Path, model_type: str, tokenizer: Tokenizer | None = None, auto: Any = transformers.AutoModelForCausalLM,
    **sizes: Any,
) -> Path:
    """A model with random weights, norms and biases, large enough that each of them changes the logits."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **({"vocab_size": TOKENS, "initializer_range": 0.2} | sizes))
    module = auto.from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    module.save_pretrained(folder)
    write_tokenizer(folder, tokenizer or byte_tokenizer())
    return folder


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    first, second = SPECIAL
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=first, eos_token=first, pad_token=second
    ).save_pretrained(folder)


def byte_tokenizer(merges: tuple[tuple[str, str], ...] = (), **options: Any) -> Tokenizer:
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), **options))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer


def change(folder: Path, file: str, **changes: Any) -> None:
    """Sets keys of a JSON file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def conf(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """The config of conf/model/NAME.yaml, with this folder as its source."""
    model = OmegaConf.to_container(OmegaConf.load(CONF / f"model/{name}.yaml"))
    source = {"hub": str(folder), "revision": "main"}
    return model | {"name": "small", "dtype": "float32", "layers": 3, "source": source} | changes


def llama(folder: Path, **changes: Any) -> dict[str, Any]:
    return conf("llama3_8b", folder, **changes)


def weights(folder: Path, changed: Callable[[dict], dict]) -> None:
    tensors = changed(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def remove(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).unlink()
