"""SAEs that others have trained, in the two forms that all of them come to (docs/imported.md): with thresholds, or TopK.

    f     = pi H(pi - theta)  theta >= 0      or      f = ReLU(TopK(pi))
    x_hat = f W_dec + b_dec

theta is 0 for a ReLU; a Gated SAE has exp(r_mag) W_gate as W_enc and max(0, b_mag - exp(r_mag) b_gate) as theta. Rows of
W_dec have norm one, but for a TopK whose rows differ: to normalise them would change which latents are the largest.
"""
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.topk import TopK


class _Imported(SparseAutoencoder):
    """Encodes, decodes, is saved and loaded, and is not trained. imported: where it comes from; it changes nothing here."""

    def __init__(self, d_in: int, d_sae: int, sparsity: int, *, imported: Mapping[str, Any]):
        super().__init__(d_in, d_sae, sparsity)

    def step(self, x: Any, coefficient: Any, progress: float) -> NoReturn:
        raise NotImplementedError("an imported SAE is measured, not trained")


class ImportedThreshold(_Imported):
    """threshold: per latent, at least 0."""

    saved_as = "jumprelu"
    latent_units = ("b_enc", "threshold")
    activate, list_active = JumpReLU.activate, JumpReLU.list_active
    raise_thresholds_ = JumpReLU.raise_thresholds_

    def __init__(self, d_in: int, d_sae: int, sparsity: int, *, imported: Mapping[str, Any]):
        super().__init__(d_in, d_sae, sparsity, imported=imported)
        self.threshold = nn.Parameter(torch.zeros(d_sae))

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return super().margin(x) - self.threshold


class ImportedTopK(_Imported):
    """sparsity: its k."""

    saved_as = "topk"
    thresholded = False
    activate, list_active = TopK.activate, TopK.list_active
