"""The output embedding: from a direction of the residual stream to the words whose logits it raises, W_U (g * direction), g the
final norm's gain."""
from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.errors import UsageError


class Unembedding(NamedTuple):
    W_U: Float[Tensor, "vocab d_model"]
    gain: Float[Tensor, " d_model"]


@torch.no_grad()
def unembedding(module: nn.Module) -> Unembedding:
    """Of a causal language model of transformers. Raises UsageError where it has no output embedding or not one final norm."""
    head = module.get_output_embeddings()  # pyright: ignore[reportCallIssue] - of transformers' models
    norms = [norm for name, norm in module.named_modules()
             if "norm" in type(norm).__name__.lower() and not any(part.isdigit() for part in name.split("."))]
    if not isinstance(head, nn.Module) or not isinstance(W_U := getattr(head, "weight", None), Tensor) or len(norms) != 1:
        raise UsageError(f"{type(module).__name__}: scores of logits need an output embedding and one norm outside the layers, "
                         f"and it has {len(norms)} such norms; leave logit scores out")
    return Unembedding(W_U.detach(), gain_of(norms[0], W_U.shape[1]))


@torch.no_grad()
def gain_of(norm: nn.Module, d_model: int) -> Float[Tensor, " d_model"]:
    """The gain, whether it is stored as g or as g - 1 (Gemma): of +1 and -1 in turn the mean is 0 and the variance 1."""
    parameter = next(norm.parameters())
    signs = torch.ones(d_model, dtype=parameter.dtype, device=parameter.device)
    signs[1::2] = -1
    return ((norm(signs) - norm(-signs)) / 2 * signs).float()
