"""Histograms of rows of numbers that come in parts: 50 equal bins from the least to the greatest number, in one pass.

    fine bin of a number v     f = floor(v / w)      w = 2^e / HALF, with 2^e > |v| for every number of the row so far
    its bin                    floor((f - f_least) / m)      m = ceil((f_greatest - f_least + 1) / BINS)

Where e grows by s, fine bin f becomes floor(f / 2^s), which is exact: no count is ever divided. Less their mean, the numbers
stand on both sides of 0 and the largest |v| is at least 2^(e-1), so that more than HALF / 2 fine bins are between the least and
the greatest, and the 50 bins reach beyond the greatest by 5% of that range at most.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

BINS = 50
HALF = 2048  # fine bins on each side of 0
LEAST = -100  # the least e
LONGEST = 62  # shift of an int64


class Histograms(NamedTuple):
    """Of each row."""

    counts: Int64[np.ndarray, "n bins"]
    start: Float[np.ndarray, " n"]  # lower end of the first bin
    width: Float[np.ndarray, " n"]  # of a bin

    def centres(self, row: int) -> Float[np.ndarray, " bins"]:
        return self.start[row] + self.width[row] * (np.arange(self.counts.shape[1]) + 0.5)


class Counting:
    """The fine bins of n rows."""

    def __init__(self, n: int, device: torch.device):
        self.counts = torch.zeros(n, 2 * HALF, dtype=torch.int64, device=device)
        self.exponent = torch.full((n, 1), LEAST, dtype=torch.int64, device=device)
        self.one = torch.ones((), dtype=torch.int64, device=device)

    def see(self, found: Float[Tensor, "n part"]) -> None:
        self._widen(torch.frexp(found.abs().amax(1, keepdim=True)).exponent.long())
        per_unit = torch.ldexp(torch.ones_like(found[:, :1]), HALF.bit_length() - 1 - self.exponent)
        fine = (found * per_unit).floor_().add_(HALF).long()
        self.counts.scatter_add_(1, fine, self.one.expand_as(fine))

    def _widen(self, needed: Int64[Tensor, "n 1"]) -> None:
        shift = (needed - self.exponent).clamp(min=0)
        self.exponent = self.exponent + shift
        if bool(shift.any()):
            fine = torch.arange(-HALF, HALF, device=shift.device) >> shift.clamp(max=LONGEST)
            self.counts = torch.zeros_like(self.counts).scatter_add_(1, fine + HALF, self.counts)

    def histograms(self) -> Histograms:
        """Of rows with at least one number."""
        counts = self.counts.cpu().numpy()
        rows, fine = np.nonzero(counts)
        least, end = (counts > 0).argmax(1), 2 * HALF - (counts[:, ::-1] > 0).argmax(1)
        together = -(-(end - least) // BINS)
        found = np.zeros((len(counts), BINS), np.int64)
        np.add.at(found, (rows, (fine - least[rows]) // together[rows]), counts[rows, fine])
        width = 2.0 ** self.exponent[:, 0].cpu().numpy() / HALF
        return Histograms(found, (least - HALF) * width, together * width)
