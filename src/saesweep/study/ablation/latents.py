"""Which latents are ablated, and what they are set to."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.evaluation.metrics import count
from saesweep.runtime.rng import generator

ROWS = 2048  # tokens whose dense latents are in memory at a time
NONE, FREQUENT, CONTROLS = "none", "frequent", ("random_firings", "random_energy")
ZERO, MEAN = "zero", "mean"


class Moments(NamedTuple):
    """Of each latent, over tokens."""

    frequency: Float[Tensor, " d_sae"]  # share of the tokens on which it is active
    mean: Float[Tensor, " d_sae"]
    energy: Float[Tensor, " d_sae"]  # E[f^2] ||W_dec||^2, in raw units


class Ablation(NamedTuple):
    """A set of latents of one SAE, and the value that each has on every token."""

    ablated: str
    set_to: str
    draw: int
    latents: Int64[Tensor, " ablated"]
    values: Float[Tensor, " ablated"]

    def change(
        self, f: Float[Tensor, "tokens d_sae"], W_dec: Float[Tensor, "d_sae d_in"]
    ) -> Float[Tensor, "tokens d_in"]:
        """What it adds to x_hat."""
        return (self.values - f[:, self.latents]) @ W_dec[self.latents]


@torch.no_grad()
def moments(sae: SparseAutoencoder, x: Float[Tensor, "tokens d_in"]) -> Moments:
    """x: raw activations; the SAE is folded."""
    fired, total, squares = torch.zeros(3, sae.d_sae, dtype=torch.float64, device=sae.W_dec.device)
    for part in x.split(ROWS):
        f = sae.encode(part.to(sae.W_dec.device).float())
        fired += count(f > 0, 0)
        total += f.sum(0, dtype=torch.float64)
        squares += f.square().sum(0, dtype=torch.float64)
    return Moments(fired / len(x), total / len(x), squares / len(x) * sae.W_dec.double().square().sum(1))


def ablations(found: Moments, settings: Mapping[str, Any], number: int) -> list[Ablation]:
    """That of no latent, that of the frequent ones, and those of the draws. number: of the SAE, for draws of its own."""
    frequent = (found.frequency > settings["threshold"]).nonzero().squeeze(1)
    others = ((found.frequency > 0) & (found.frequency <= settings["threshold"])).nonzero().squeeze(1)
    sets = [(FREQUENT, 0, frequent)]
    for control, weights in zip(CONTROLS, (found.frequency, found.energy), strict=True):
        wanted = float(weights[frequent].sum())
        random = 0 < wanted < float(weights[others].sum())  # else each draw has none, or all of them
        sets += [(control, draw, random_latents(others, weights, wanted, generator(settings["seed"], number, draw)))
                 for draw in range(settings["draws"] if random else min(1, settings["draws"]))]
    mean = found.mean.float()
    return [Ablation(NONE, "", 0, frequent[:0], mean[:0])] + [
        Ablation(name, set_to, draw, latents, mean[latents] * (set_to == MEAN))
        for name, draw, latents in sets for set_to in (ZERO, MEAN)]


def random_latents(
    candidates: Int64[Tensor, " candidates"], weights: Float[Tensor, " d_sae"], wanted: float, random: Generator
) -> Int64[Tensor, " drawn"]:
    """The first of the candidates in random order whose weights add up to at least `wanted`; all where they do not."""
    order = candidates[torch.randperm(len(candidates), generator=random).to(candidates.device)]
    before = weights[order].cumsum(0) - weights[order]
    drawn = order[: int((before < wanted).long().cumprod(0).sum())]
    return drawn.sort().values


def shares(found: Moments, latents: Int64[Tensor, " ablated"]) -> dict[str, float]:
    """How much of an SAE a set of its latents is."""
    of = {"firings": found.frequency, "energy": found.energy}
    parts = {f"share_of_{name}": float(values[latents].sum() / values.sum().clamp(min=1e-300)) for name, values in of.items()}
    return {"latents": len(latents), "share_of_latents": len(latents) / len(found.mean), **parts}
