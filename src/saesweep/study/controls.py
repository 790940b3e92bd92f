"""What every score is compared with: latents that nobody has trained, as sparse as the SAE that they are like.

    random     a JumpReLU SAE whose encoder has random unit rows, with one threshold, at the target L0
    residual   the k coordinates of largest |x - mean| / sd        k: the target L0
    pca        the k largest projections on the principal components, of both signs

Mean, sd, components and the threshold are measured on blocks from all over the fit half.
"""
from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.latents import Latents
from saesweep.arch.topk import TopK
from saesweep.runtime.rng import generator
from saesweep.study.subjects import Subject
from saesweep.training.calibration import meet_l0_
from saesweep.training.loaded import load

TOKENS = 16_384  # of the fit half, on which controls are measured


@runtime_checkable
class Encoder(Protocol):
    """What is collected: values in raw units, or in training units times `Loaded.scale`."""

    def list_active(self, x: Float[Tensor, "rows d_in"], /) -> Latents: ...


def encoder_of(subject: Subject, x: Float[Tensor, "rows d_in"] | None, device: torch.device) -> tuple[Encoder, float]:
    """The encoder of a subject, which takes raw activations, and by what its values are divided.

    x: raw activations without sinks, on which a control is measured.
    """
    if subject.control is None:
        return load(subject.job, str(device)), subject.statistics.scale
    assert x is not None, "a control is measured on activations"
    if subject.control == "residual":
        return ResidualBasis(x, subject.l0), 1.0
    scaled = subject.statistics.apply(x)
    made = random_jumprelu(scaled, subject) if subject.control == "random" else pca(scaled, subject.l0)
    made.fold_(subject.statistics.mean.to(device), subject.statistics.scale)
    return made, subject.statistics.scale


class ResidualBasis:
    """The k largest of |x - mean| / sd."""

    def __init__(self, x: Float[Tensor, "rows d_in"], k: int) -> None:
        x = x.double()
        self.mean, self.sd = x.mean(0).float(), x.std(0).clamp(min=1e-30).float()
        self.k = min(k, x.shape[1])

    def list_active(self, x: Float[Tensor, "rows d_in"], /) -> Latents:
        z = (x - self.mean).abs() / self.sd
        values, columns = z.topk(self.k, sorted=False)
        return Latents(torch.zeros_like(z).scatter(-1, columns, values), (len(z), z.shape[1]))


@torch.no_grad()
def random_jumprelu(x: Float[Tensor, "rows d_in"], subject: Subject) -> SparseAutoencoder:
    sae = JumpReLU(x.shape[1], subject.d_sae, subject.l0, bandwidth=1e-3, init_threshold=0.0, relative=False, warm_start=0.0,
                   threshold_tokens=1).requires_grad_(False)
    rows = torch.randn(subject.d_sae, x.shape[1], generator=generator(subject.number))
    sae.W_enc_T.copy_(rows / rows.norm(dim=1, keepdim=True))
    sae.to(x.device)
    meet_l0_(sae, x)
    return sae


@torch.no_grad()
def pca(x: Float[Tensor, "rows d_in"], k: int) -> SparseAutoencoder:
    """TopK whose encoder rows are the principal components and their negatives."""
    d_in, mean = x.shape[1], x.double().mean(0)
    centred = (x.double() - mean).cpu()
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0).float()  # the largest first
    sae = TopK(d_in, 2 * d_in, min(k, 2 * d_in), alpha=0.0, k_aux=1, aux_tokens=0).requires_grad_(False)
    sae.W_enc_T.copy_(torch.cat([components, -components]))
    sae.b_dec.copy_(mean)
    return sae.to(x.device)
