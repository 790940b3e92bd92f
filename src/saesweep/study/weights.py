"""What scores need beside the collected activations: the weights of an SAE, and the activations x that it was given."""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saesweep.lm.hooks import HookPoint
from saesweep.study.activations import Activations
from saesweep.study.hits import Collected, HalfName
from saesweep.study.text import Portion, Text
from saesweep.training.loaded import LoadedSAE, load


class Weights:
    """The SAE that was asked for last is kept."""

    def __init__(self) -> None:
        self._load = lru_cache(maxsize=1)(load)

    def loaded(self, sae: Collected) -> LoadedSAE:
        """The SAE; of a control the one that it is like."""
        return self._load(sae.folder)

    def decoder(self, sae: Collected) -> Float[Tensor, "d_sae d_in"] | None:
        """The decoder's rows, of length 1; None of a control."""
        return None if sae.control else torch.nn.functional.normalize(self.loaded(sae).W_dec.detach(), dim=1)

    def decoder_of_resid(self, sae: Collected) -> Float[Tensor, "d_sae d_in"] | None:
        """The same of an SAE of the residual stream; None of others, whose rows are no directions of it."""
        return self.decoder(sae) if sae.config["site"]["name"] == "resid" else None

    def decoder_array(self, sae: Collected) -> Float[np.ndarray, "d_sae d_in"] | None:
        found = self.decoder(sae)
        return None if found is None else found.numpy()


class DenseRows:
    """The activations x in training units, on the positions `dense` of a half; 0 at tokens that are not measured.

    They are read again, those of one hook point at a time: kept, they would be the largest file of a study.
    """

    def __init__(self, source: Activations, text: Text, weights: Weights) -> None:
        self.source, self.text, self.weights = source, text, weights
        self._of: Any = None  # hook point and normalisation that were asked for last
        self._kept: dict[HalfName, np.ndarray] = {}

    def __call__(self, sae: Collected, half: HalfName) -> Float[np.ndarray, "tokens d_in"]:
        like = self.weights.loaded(sae)
        asked = like.point, like.statistics.scale, like.statistics.mean.tolist()
        if self._of != asked:
            self._of, self._kept = asked, {}
        if half not in self._kept:
            of = sae.half(half)
            x = like.statistics.apply(torch.from_numpy(self._read(half, of.dense, like.point, like.d_in))).numpy()
            self._kept[half] = np.where(of.measured[of.dense][:, None], x, np.float32(0))
        return self._kept[half]

    @torch.no_grad()
    def _read(
        self, name: HalfName, dense: Int64[np.ndarray, " tokens"], point: HookPoint, d_in: int
    ) -> Float[np.ndarray, "tokens d_in"]:
        """Of whole blocks, some of which may begin or end outside of `dense`."""
        half, x = self.text[name], np.zeros((len(dense), d_in), np.float32)
        block = half.block[dense]
        firsts = np.flatnonzero(np.diff(block, prepend=-1))
        ends = np.searchsorted(half.block, block[firsts], side="right")
        starts = np.searchsorted(half.block, block[firsts])
        blocks = [Portion(name, int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
        positions = np.concatenate([one.start + np.flatnonzero(half.ordinary[one.start : one.stop]) for one in blocks])
        rows = torch.cat([part[point].float().cpu() for part in self.source.rows(half, blocks, [point])]).numpy()
        inside = np.isin(positions, dense)
        x[np.searchsorted(dense, positions[inside])] = rows[inside]
        return x
