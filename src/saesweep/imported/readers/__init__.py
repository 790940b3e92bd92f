"""One file per format: from the files of an SAE to what they say about it, and its tensors."""
from collections.abc import Callable

from saesweep.imported.about import About
from saesweep.imported.fold import Original
from saesweep.imported.readers import dictionary_learning, gemma_scope, llama_scope, qwen_scope, saelens, sparsify
from saesweep.imported.source import Source

Reader = Callable[[Source, float | None], tuple[About, Original]]
READERS: dict[str, Reader] = {  # by the file of the weights
    "sae_weights.safetensors": saelens.read,
    "params.npz": gemma_scope.read_1,
    "params.safetensors": gemma_scope.read_2,
    "ae.pt": dictionary_learning.read,
    "sae.safetensors": sparsify.read,
    "checkpoints/final.safetensors": llama_scope.read,
    "*.sae.pt": qwen_scope.read,
}
