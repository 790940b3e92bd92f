"""A language model that has learned nothing, of the same shape and scale: what scores of interpretability are compared with.

The entries of each matrix of its blocks change places within the matrix, as in Bricken et al. 2023 (Towards Monosemanticity)
and 2501.17727. Embeddings, norms and biases stay, so that a token is still told by its vector.
"""
import torch
from torch import nn

from saesweep.errors import UsageError
from saesweep.runtime.rng import generator


@torch.no_grad()
def shuffle_(module: nn.Module, output: nn.Module | None, seed: int) -> None:
    """In place. output: the output embedding, which stays. Raises UsageError for quantised weights."""
    if any(not weight.is_floating_point() or weight.element_size() < 2 for weight in module.parameters()):
        raise UsageError("model.source.shuffle: the weights are quantised, in groups that share a scale; leave it out")
    kept = {id(weight) for part in module.modules() if isinstance(part, nn.Embedding) or part is output
            for weight in part.parameters()}
    for number, weight in enumerate(module.parameters()):
        if weight.ndim > 1 and id(weight) not in kept:
            order = torch.randperm(weight.numel(), generator=generator(seed, number))
            weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))
