"""The errors of one SAE's reconstruction with latents ablated, as sums per document."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from saesweep.study.ablation.latents import CONTROLS, ROWS, Ablation, Moments, ablations, moments
from saesweep.study.ablation.rows import Part, Rows
from saesweep.training.loaded import LoadedSAE

Sums = Float64[np.ndarray, " documents"]


class Loss(NamedTuple):
    """Delta loss = (sum nats - sum clean) / sum scored."""

    nats: list[Sums | None]  # of each ablation; None: its delta loss is not measured
    clean: Sums
    scored: Sums


class Measured(NamedTuple):
    """Of one SAE: FVU = sum error / sum variance."""

    moments: Moments
    ablations: list[Ablation]
    error: list[Sums]  # of each ablation
    variance: Sums
    loss: Loss | None


def measure(
    sae: LoadedSAE, rows: Rows, settings: Mapping[str, Any], number: int, progress: Callable[[float], None] = lambda share: None
) -> Measured:
    """number: determines the draws. progress: called with the share of the spliced passes that is done."""
    found = moments(sae, rows.calibration.without_sinks(sae.statistics).x)
    made = ablations(found, settings, number)
    part, count = rows.evaluation.without_sinks(sae.statistics), int(rows.evaluation.documents.max()) + 1
    error, variance = errors(sae, part, made, count), variances(part, count)
    if (splices := rows.splices) is None:
        return Measured(found, made, error, variance, None)
    spliced = [i for i, one in enumerate(made) if one.ablated not in CONTROLS or one.draw < settings["lm_draws"]]
    nats = dict(zip(spliced, map(np.array, splices.nats(sae, [made[i] for i in spliced], progress)), strict=True))
    loss = Loss([nats.get(i) for i in range(len(made))], np.array(splices.nats_clean), np.array(splices.scored))
    return Measured(found, made, error, variance, loss)


@torch.no_grad()
def errors(sae: LoadedSAE, part: Part, made: Sequence[Ablation], count: int) -> list[Sums]:
    """sum ||x - x_hat||^2 per document, for each ablation; one encoding serves all of them."""
    sums = torch.zeros(len(made), count, dtype=torch.float64)
    for x, documents in zip(part.x.split(ROWS), part.documents.split(ROWS), strict=True):
        x = x.to(sae.W_dec.device).float()
        f = sae.encode(x)
        residual = sae.decode(f).double() - x.double()
        for number, one in enumerate(made):
            squares = (residual + one.change(f, sae.W_dec)).square().sum(1)
            sums[number].index_add_(0, documents, squares.cpu())
    return list(sums.numpy())


def variances(part: Part, count: int) -> Sums:
    """sum ||x - mean x||^2 per document, with the mean over all of them."""
    mean = torch.stack([x.sum(0, dtype=torch.float64) for x in part.x.split(ROWS)]).sum(0) / len(part.x)
    found: list[Tensor] = [(x.double() - mean).square().sum(1) for x in part.x.split(ROWS)]
    return torch.zeros(count, dtype=torch.float64).index_add_(0, part.documents, torch.cat(found)).numpy()
