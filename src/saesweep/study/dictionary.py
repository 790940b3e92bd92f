"""What a study reads of a known dictionary (`model=synthetic`): DOCUMENT consecutive draws are a document without text."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.config.settings import Settings, device_of
from saesweep.data.synthetic import SyntheticSource
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime.rng import STUDY, generator
from saesweep.study.hits import HALVES, HalfName, TextHalf
from saesweep.study.split import half_of
from saesweep.study.text import Portion, Text, pool_of

DOCUMENT = 128  # independent draws


class FromDictionary:
    def __init__(self, job: Settings, settings: Mapping[str, Any], point: HookPoint) -> None:
        numbers = range(math.ceil(settings["tokens"] / DOCUMENT))
        self.seed = settings["seed"]
        self.numbers = {half: [n for n in numbers if half_of(str(n), self.seed) == half] for half in HALVES}
        if empty := [half for half in HALVES if not self.numbers[half]]:
            raise UsageError(f"tokens={settings['tokens']}: no document of {DOCUMENT} draws is in the half {empty[0]}; write "
                             "more tokens")
        self.source = SyntheticSource(point, **job["model"]["source"]["synthetic"], window=DOCUMENT, stream_seed=0,
                                      device=device_of(job))

    def text(self) -> Text:
        return {half: self._half(half) for half in HALVES}

    def _half(self, half: HalfName) -> TextHalf:
        count = len(self.numbers[half])
        document, index = (x.ravel().astype(np.int32) for x in np.indices((count, DOCUMENT)))
        ordinary = np.ones(len(document), bool)
        pool = pool_of(document, ordinary, self.seed)
        return TextHalf([""] * count, np.zeros_like(document), document, index, document, ordinary, pool)

    def rows(self, half: TextHalf, portions: Sequence[Portion], points: Sequence[HookPoint]) -> Iterator[Rows]:
        """The activations of some portions of a half."""
        yield {points[0]: torch.cat([x for portion in portions for x, _ in self._draws(portion)])}

    def features(self, half: HalfName) -> Float[Tensor, "tokens features"]:
        """The true activations of the dictionary's features at every position of a half."""
        whole = Portion(half, 0, DOCUMENT * len(self.numbers[half]))
        return torch.cat([a for _, a in self._draws(whole)])

    def _draws(self, portion: Portion) -> Iterator[tuple[Tensor, Tensor]]:
        """Each document is drawn by itself, so that none depends on what is read before it."""
        for number in self.numbers[portion.half][portion.start // DOCUMENT : portion.stop // DOCUMENT]:
            yield self.source.draw_with_features(DOCUMENT, generator(self.source.seed, STUDY, number))
