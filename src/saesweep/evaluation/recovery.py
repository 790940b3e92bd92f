"""Evaluation on synthetic activations: fidelity, how well the known dictionary is recovered, and absorption.

A parent is a feature that has a child, which is active only where it is (data/synthetic.py). An SAE that needs fewer latents
gives the child a latent in the direction of both, and the parent's own is silent where the child is active: the child has
absorbed it. The parent's latent is the one whose decoder row has the largest cosine with it, as in `recovery`.

    parent_silent_with_child    mean over parents of the share of the tokens with its child on which its latent is silent
    parent_silent_alone         the same of the tokens with the parent and without its child: silent for other reasons
"""
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.data.synthetic import SyntheticSource
from saesweep.evaluation.subject import Measured, Subject, measure_rows
from saesweep.runtime.rng import SYNTHETIC_EVALUATION, generator

DOCUMENT = 128  # independent tokens that are counted as a document


def recovery(dictionary: Float[Tensor, "features d_in"], W_dec: Float[Tensor, "d_sae d_in"]) -> float:
    """Mean over the true features of the largest cosine with a decoder row; all rows have norm one."""
    return float((dictionary.to(W_dec) @ W_dec.T).amax(1).mean())


def absorption(
    parents: Float[Tensor, "pairs d_in"], sae: SparseAutoencoder, x: Float[Tensor, "tokens d_in"],
    parent: Bool[Tensor, "tokens pairs"], child: Bool[Tensor, "tokens pairs"],
) -> dict[str, float | None]:
    """parents: their directions; parent, child: where they are active. None where that is nowhere."""
    latents = (parents.to(sae.W_dec) @ sae.W_dec.T).argmax(1)
    silent = torch.cat([sae.encode(part.float())[:, latents] <= 0 for part in x.split(2048)])
    found = {"parent_silent_with_child": parent & child, "parent_silent_alone": parent & ~child}
    return {key: _mean_share(silent, where) for key, where in found.items()}


def _mean_share(silent: Bool[Tensor, "tokens pairs"], where: Bool[Tensor, "tokens pairs"]) -> float | None:
    times = where.sum(0)
    shares = ((silent & where).sum(0) / times)[times > 0]
    return float(shares.mean()) if len(shares) else None


@torch.no_grad()
def evaluate_synthetic(source: SyntheticSource, subjects: Sequence[Subject], tokens: int) -> list[Measured | Exception]:
    """The metrics of each SAE on `tokens` synthetic activations, or the exception that isolated it."""
    x, a = source.draw_with_features(tokens, generator(source.seed, SYNTHETIC_EVALUATION))
    measure_rows(subjects, x, torch.arange(tokens) // DOCUMENT)
    return [s.failed or s.result(_known(source, s.sae, x, a)) for s in subjects]


def _known(
    source: SyntheticSource, sae: SparseAutoencoder, x: Float[Tensor, "tokens d_in"], a: Float[Tensor, "tokens features"]
) -> dict[str, float | None]:
    """What is measured by the truth. a: the features' values."""
    found: dict[str, float | None] = {"recovery": recovery(source.dictionary, sae.W_dec)}
    if n := source.children:
        found |= absorption(source.dictionary[:n], sae, x, a[:, :n] > 0, a[:, -n:] > 0)
    return found
