"""W_enc in bf16, as the selection of candidates on CUDA ranks latents by it (gpu/candidates.py), kept from step to step.

    low [d_sae, d_in]    the matrix in bf16
    norms [d_sae]        ||share * row||_4 of each of its rows, in fp32
    share [d_in]         what balances the coordinates of u and the matrix: any positive numbers are right, those of the last
                         batch leave few candidates

The update writes copy and norms beside the weights (gpu/update.py): 2 bytes a parameter of W_enc, where a pass of its own in
each step would take 6. In exchange every SAE that a GPU trains holds 2 bytes a parameter of W_enc, beside 24 for both matrices
and their moments.

A copy is of the matrix at its address, which is not reused while the copy is kept, and its version, which torch raises at every
change in place (a checkpoint that is loaded, an optimizer of torch); so does our update, whose kernels torch does not see. What
writes through `.data` is not noticed: training/contract.py refuses it.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Copy(NamedTuple):
    low: Tensor
    norms: Tensor
    share: Tensor


@dataclass
class Rounded:
    """share: with which the next copy is written, None before the first step; a checkpoint keeps it, so that a resumed training
    lists the same candidates."""

    share: Tensor | None = None
    copy: Copy | None = None
    _matrix: Tensor | None = None  # keeps the address
    _version: int = 0

    def of(self, matrix: Tensor) -> Copy | None:
        """The copy of this matrix, unless the matrix has changed since, or is another one."""
        known = self._matrix is not None and self._matrix.data_ptr() == matrix.data_ptr() and self._version == matrix._version
        return self.copy if known else None

    def keep(self, matrix: Tensor, copy: Copy) -> Copy:
        """In the memory of the last one, where a CUDA graph reads it, but for the share, which is a tensor of its own."""
        fits = self.copy is not None and _fits(self.copy.low, copy.low)
        self.copy = self.copy if self.copy is not None and fits else copy._replace(share=copy.share.clone())
        for old, new in zip(self.copy, copy, strict=True):
            if old.data_ptr() != new.data_ptr():
                old.copy_(new)
        self._matrix, self._version = matrix.detach(), matrix._version
        return self.copy

    def write_next_with(self, share: Tensor) -> None:
        """Set `share`, in its memory."""
        if self.share is None or not _fits(self.share, share):
            self.share = share.clone()
        else:
            self.share.copy_(share)

    def drop(self) -> None:
        """Free the memory: the training has ended."""
        self.copy = self._matrix = None


def _fits(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and old.device == new.device


def changed(matrix: Tensor) -> None:
    """Call after a kernel has written to the matrix."""
    torch.autograd.graph.increment_version(matrix)
