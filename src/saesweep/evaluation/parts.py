"""The SAEs that an SAE holds: its first m latents alone, or the j largest of each token, where its architecture names them.

    l0    mean number of their latents > 0 per token
    fvu   sum ||x - x_hat||^2 / sum ||x - mean x||^2 with x_hat from them alone
"""
from collections.abc import Iterator
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.ops.plain import kept


class Part(TypedDict):
    latents: str  # which ones: `first 128`, or `8 largest`
    l0: float
    fvu: float | None


class Parts:
    """Sums over tokens, in fp64, of every part of an SAE."""

    def __init__(self, sae: SparseAutoencoder):
        self.sae = sae
        self.names = [f"first {m}" for m in sae.prefixes] + [f"{j} largest" for j in sae.levels]
        self.active, self.error, self.tokens = [0] * len(self.names), [0.0] * len(self.names), 0

    @torch.no_grad()
    def add(
        self, x: Float[Tensor, "tokens d_in"], f: Float[Tensor, "tokens d_sae"], y: Float[Tensor, "tokens d_out"] | None = None
    ) -> None:
        """x: raw, and y, the target of a transcoder; f: all latents."""
        self.tokens += len(x)
        y = x if y is None else y
        for i, (part, x_hat) in enumerate(self._reconstructed(f)):
            self.active[i] += int((part > 0).sum())
            self.error[i] += float((y.double() - self.sae.with_skip(x_hat, x)).square().sum())

    def _reconstructed(self, f: Float[Tensor, "tokens d_sae"]) -> Iterator[tuple[Tensor, Tensor]]:
        """The latents of each part, and its reconstruction."""
        for m in self.sae.prefixes:
            yield f[:, :m], f[:, :m] @ self.sae.W_dec[:m] + self.sae.b_dec
        for j in self.sae.levels:
            largest = f * kept(f, None, j)
            yield largest, self.sae.decode(largest)

    def result(self, variance: float | None) -> list[Part]:
        """variance: sum ||x - mean x||^2 in raw units; None where it is zero up to rounding."""
        fvu = [None if variance is None else error / variance for error in self.error]
        l0 = [active / self.tokens for active in self.active]
        return [Part(latents=name, l0=a, fvu=b) for name, a, b in zip(self.names, l0, fvu, strict=True)]
