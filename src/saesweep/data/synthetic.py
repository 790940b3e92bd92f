"""Synthetic activations: sparse sums of a known dictionary, so that its recovery can be measured.

    x = sum over features of  a_i * d_i + noise        d_i unit vectors, a_i in [0.5, 1.5] with probability p_i, else 0

The p_i fall geometrically from the first feature to the last by the factor `spread` and add up to l0. The last features, a
share `parents` of all, are children: the parent of the first child is the first feature, and so on. A child is active only
where its parent is, there with probability p_i / p_parent, so that an SAE can absorb the parent into the child.
"""
from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime.rng import SYNTHETIC, generator


class SyntheticSource:
    """Windows of `window` rows of synthetic activations at one hook point; `seed` draws the dictionary."""

    def __init__(
        self, point: HookPoint, *, features: int, d_in: int, l0: float, spread: float, noise: float, seed: int,
        window: int, stream_seed: int, parents: float = 0.0, device: torch.device | str = "cpu",
    ):
        self.device = device
        self.point, self.noise, self.rows, self.seed, self.number = point, noise, window, stream_seed, 0
        directions = torch.randn(features, d_in, generator=generator(seed))
        self.dictionary = directions / directions.norm(dim=1, keepdim=True)
        falling = torch.logspace(0, -math.log10(spread), features)
        self.probability = (falling * l0 / falling.sum()).clamp(max=1.0)
        self.children = round(parents * features)

    def window(self, rows: int) -> Rows:
        """The next window; a smaller one where no more than `rows` rows are wanted."""
        self.number += 1
        return {self.point: self.draw(min(self.rows, rows), generator(self.seed, SYNTHETIC, self.number))}

    def draw(self, count: int, random: torch.Generator) -> Float[Tensor, "count d_in"]:
        """`count` independent rows."""
        return self.draw_with_features(count, random)[0]

    def draw_with_features(
        self, count: int, random: torch.Generator
    ) -> tuple[Float[Tensor, "count d_in"], Float[Tensor, "count features"]]:
        """`count` independent rows, and the a_i of each."""
        features, d_in = self.dictionary.shape
        strength = 0.5 + torch.rand(count, features, generator=random)
        a = self._active(torch.rand(count, features, generator=random)) * strength
        x = a @ self.dictionary + self.noise * torch.randn(count, d_in, generator=random)
        return x.to(self.device), a.to(self.device)

    def _active(self, uniform: Float[Tensor, "count features"]) -> Bool[Tensor, "count features"]:
        active = uniform < self.probability
        if self.children:
            given_parent = self.probability[-self.children :] / self.probability[: self.children]
            active[:, -self.children :] = active[:, : self.children] & (uniform[:, -self.children :] < given_parent)
        return active

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
