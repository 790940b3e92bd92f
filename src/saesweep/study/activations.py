"""The activations that a study reads: of a language model on held-out text, or of a known dictionary."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from saesweep.config.settings import Settings, device_of, has_lm
from saesweep.data.disk_cache import CachedSource
from saesweep.data.harvest import LanguageModelSource, harvest
from saesweep.data.micro_batches import micro_batches, ordinary_positions
from saesweep.data.resources import Resources
from saesweep.lm.hooks import HookPoint, Rows
from saesweep.runtime import distributed
from saesweep.study.dictionary import FromDictionary
from saesweep.study.hits import TextHalf
from saesweep.study.split import split
from saesweep.study.text import Portion, Text, blocks_of, text_half
from saesweep.training.origin import determined_by


class FromText:
    """A language model and the held-out text of a sweep; no weight is loaded before `rows` is called."""

    def __init__(self, job: Settings, settings: Mapping[str, Any], resources: Resources) -> None:
        self.job, self.settings, self.resources = job, settings, resources
        self.corpus, self.tokenizer = resources.text(job)

    def text(self) -> Text:
        """Raises UsageError where there is too little text."""
        halves = split(self.corpus, self.tokenizer, tokens=self.settings["tokens"], seed=self.settings["seed"])
        return {half: text_half(documents, self.tokenizer, self.job["context"], self.settings["seed"])
                for half, documents in halves.items()}

    def rows(self, half: TextHalf, portions: Sequence[Portion], points: Sequence[HookPoint]) -> Iterator[Rows]:
        """Raw activations at the ordinary positions of some portions of a half, by micro-batch.

        One rank alone reads the sweep's cache.
        """
        tokens = torch.cat([blocks_of(half, portion, self.job["context"]) for portion in portions])
        parts = micro_batches(tokens, self.settings["forward_tokens"])
        if not self.job["cache"]["folder"] or distributed.world_size() > 1:
            yield from (harvest(self.resources.language_model(self.job), points, part) for part in parts)
            return
        whole = self._cached(tuple(points)).read(tokens)
        counts = [int(ordinary_positions(part, self.tokenizer).sum()) for part in parts]
        for found in zip(*(x.split(counts) for x in whole.values()), strict=True):
            yield dict(zip(whole, found, strict=True))

    @cache  # noqa: B019 the reader lasts as long as the pass
    def _cached(self, points: tuple[HookPoint, ...]) -> CachedSource:
        job, activations = self.job, self.job["activations"]
        sizes = {"context": job["context"], "window": activations["window"]}
        make = cache(lambda: LanguageModelSource(
            self.resources.language_model(job), self.corpus, points, **sizes, forward_tokens=self.settings["forward_tokens"],
            documents_per_pool=activations["documents_per_pool"], stream_seed=job["stream_seed"]))
        determined = {**determined_by(job, self.resources), "forward_tokens": self.settings["forward_tokens"]}
        return CachedSource(Path(job["cache"]["folder"]), determined, points, make, tokenizer=self.tokenizer, **sizes,
                            device=device_of(job))


Activations = FromText | FromDictionary


def activations_of(
    job: Settings, points: Sequence[HookPoint], settings: Mapping[str, Any], resources: Resources
) -> Activations:
    if has_lm(job):
        return FromText(job, settings, resources)
    return FromDictionary(job, settings, points[0])
