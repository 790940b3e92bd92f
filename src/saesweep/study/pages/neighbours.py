"""The decoder rows that are most like a latent's: the NEAREST largest cosines."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

NEAREST, ROWS = 10, 64  # rows at a time: all cosines of a wide SAE are large


class Neighbours(NamedTuple):
    """Of some latents the other latents of largest cosine, largest first."""

    latents: Int64[np.ndarray, "n nearest"]
    cosines: Float[np.ndarray, "n nearest"]


def neighbours(decoder: Float[np.ndarray, "d_sae d_in"], latents: Int64[np.ndarray, " n"]) -> Neighbours:
    """decoder: rows of length 1."""
    found, cosines, count = [], [], min(NEAREST, len(decoder) - 1)
    for first in range(0, len(latents), ROWS):
        mine = latents[first : first + ROWS]
        like = decoder[mine] @ decoder.T
        like[np.arange(len(mine)), mine] = -np.inf
        some = np.argpartition(-like, max(count - 1, 0), axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(like, some, 1), axis=1, kind="stable")
        found.append(np.take_along_axis(some, order, 1))
        cosines.append(np.take_along_axis(like, found[-1], 1))
    empty = np.empty((0, count))
    return Neighbours(np.concatenate([empty.astype(np.int64), *found]), np.concatenate([empty, *cosines]))
