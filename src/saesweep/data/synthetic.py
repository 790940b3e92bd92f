"""Synthetic activations: sparse sums of a known dictionary, so that its recovery can be measured.

    x = sum over features of  a_i * d_i + noise        d_i unit vectors, a_i in [0.5, 1.5] with probability p_i, else 0

The p_i fall geometrically from the first feature to the last by the factor `spread` and add up to l0.
"""
from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime.rng import SYNTHETIC, generator


class SyntheticSource:
    """Windows of `window` rows of synthetic activations at one hook point; `seed` draws the dictionary."""

    def __init__(
        self, point: HookPoint, *, features: int, d_in: int, l0: float, spread: float, noise: float, seed: int,
        window: int, stream_seed: int, device: torch.device | str = "cpu",
    ):
        self.device = device
        self.point, self.noise, self.rows, self.seed, self.number = point, noise, window, stream_seed, 0
        directions = torch.randn(features, d_in, generator=generator(seed))
        self.dictionary = directions / directions.norm(dim=1, keepdim=True)
        falling = torch.logspace(0, -math.log10(spread), features)
        self.probability = (falling * l0 / falling.sum()).clamp(max=1.0)

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
        active = torch.rand(count, features, generator=random) < self.probability
        a = active * strength
        x = a @ self.dictionary + self.noise * torch.randn(count, d_in, generator=random)
        return x.to(self.device), a.to(self.device)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
