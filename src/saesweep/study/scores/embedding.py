"""Embeddings of texts by a small encoder, such as all-MiniLM-L6-v2 (Reimers and Gurevych, arXiv:1908.10084):

    e = m / |m|,   m = the mean of the last hidden states over the tokens
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float

from saesweep.errors import UsageError
from saesweep.lm.hub import brief, silence_transformers

BATCH, LONGEST = 64, 256  # texts at a time; tokens of a text, beyond which it is cut


class Embedder:
    """folder: of a model and tokenizer that transformers reads. Raises UsageError where it does not."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        options = {"local_files_only": True, "trust_remote_code": False}
        auto: Any = transformers.AutoModel
        try:
            with silence_transformers():
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
                self._model = auto.from_pretrained(folder, use_safetensors=True, **options).float().eval().to(device)
        except Exception as error:
            raise UsageError(f"embedder.folder={folder}: transformers cannot load it: {brief(error)}") from error

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts d"]:
        """Texts of similar length share a batch."""
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        found = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        for first in range(0, len(order), BATCH):
            numbers = order[first : first + BATCH]
            found[numbers] = self._batch([texts[n] for n in numbers])
        return found

    def _batch(self, texts: list[str]) -> Float[np.ndarray, "texts d"]:
        given = self._tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        given = given.to(self._model.device)
        mask = given["attention_mask"][:, :, None]
        mean = (self._model(**given).last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
