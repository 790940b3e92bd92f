"""The language model's loss with each SAE's reconstruction, zeros or the mean in place of the activations at a hook point.

The clean pass, and the ablated ones of each hook point, are computed once for all SAEs.
"""
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saesweep.data.micro_batches import lm_input, ordinary_positions
from saesweep.evaluation.metrics import CrossEntropy, by_document, spliced
from saesweep.evaluation.subject import Subject
from saesweep.lm.hooks import HookPoint, blocks_before, edit, recorded, replayed
from saesweep.lm.models import LanguageModel
from saesweep.lm.unembedding import logits_at


def replaced(
    x: Float[Tensor, "batch pos d_in"], at: Bool[Tensor, "batch pos"], fn: Callable[[Tensor], Tensor]
) -> Float[Tensor, "batch pos d_in"]:
    """x with fn applied at the positions `at`; fn maps [tokens, d_in] to the same shape, in fp32."""
    x = x.clone()
    x[at] = fn(x[at].float()).to(x.dtype)
    return x


class Batch(NamedTuple):
    """Tokens of a forward pass, and those whose predictions are scored, on the device of the language model."""

    tokens: Int[Tensor, "batch pos"]
    at: Bool[Tensor, "batch pos"]  # none of them is the first of a block

    @classmethod
    def of(cls, tokens: Int[Tensor, "batch pos"], at: Bool[Tensor, "batch pos"], lm: LanguageModel) -> "Batch":
        """tokens: padded with negative ones."""
        device = next(lm.module.parameters()).device
        return cls(lm_input(tokens).to(device), at.to(device))

    def score(self, lm: LanguageModel, loss: CrossEntropy) -> None:
        """Run the language model as it is at the time, and add its losses."""
        logits = logits_at(lm.module, self.tokens, self.at.roll(-1, 1))
        loss.add(logits, self.tokens[self.at], self.at.sum(1).tolist())


class SplicedPasses:
    """The clean, ablated and spliced forward passes over the same blocks."""

    def __init__(self, lm: LanguageModel, subjects: Sequence[Subject]):
        points = list(dict.fromkeys(subject.point for subject in subjects))
        self.lm, self.subjects = lm, subjects
        self.statistics = {s.point: s.statistics for s in subjects}
        self.means = {s.point: _raw_mean(s) for s in subjects}
        self.unchanged = {point: blocks_before(lm.module, point) for point in points}
        self.clean = CrossEntropy()
        self.zero = {point: CrossEntropy() for point in points}
        self.mean = {point: CrossEntropy() for point in points}

    def add(self, tokens: Int[Tensor, "batch context"], at: Bool[Tensor, "batch context"]) -> None:
        """Run all passes on a micro-batch. at: the tokens whose predictions are scored."""
        batch = Batch.of(tokens, at, self.lm)
        ordinary = ordinary_positions(tokens, self.lm.tokenizer).to(batch.at.device)
        with recorded(max(self.unchanged.values(), key=len)) as self.outputs:
            batch.score(self.lm, self.clean)
        for point, mean in self.means.items():
            with self._replaced(point, ordinary, torch.zeros_like):
                batch.score(self.lm, self.zero[point])
            with self._replaced(point, ordinary, lambda x, mean=mean: mean.expand_as(x)):
                batch.score(self.lm, self.mean[point])
        for subject in (s for s in self.subjects if s.failed is None):
            with subject.isolate_failures(), self._replaced(subject.point, ordinary, subject.sae):
                batch.score(self.lm, subject.ce)

    @contextmanager
    def _replaced(
        self, point: HookPoint, ordinary: Bool[Tensor, "batch pos"], fn: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Apply fn at the hook point in a forward pass of the clean pass's tokens, without computing earlier blocks again."""
        statistics = self.statistics[point]
        with (
            replayed(self.unchanged[point], self.outputs),
            edit(self.lm.module, point, lambda x: replaced(x, ordinary & statistics.ordinary(x), fn)),
        ):
            yield

    def result(self, subject: Subject) -> Mapping[str, float | None]:
        """The metrics of the spliced loss: see `metrics.spliced`."""
        zero, mean = self.zero[subject.point].result(), self.mean[subject.point].result()
        return spliced(self.clean.result(), subject.ce.result(), zero, mean)

    def by_document(self, subject: Subject, documents: Int[Tensor, " blocks"]) -> dict[str, list[float]]:
        """Sums per document: delta_loss = (sum nats_sae - sum nats_clean) / sum scored; empty if the loss is not finite."""
        if subject.ce.result() is None:
            return {}
        values = {"scored": self.clean.tokens, "nats_clean": self.clean.nats, "nats_sae": subject.ce.nats}
        return {key: by_document(found, documents) for key, found in values.items()}


def _raw_mean(subject: Subject) -> Float[Tensor, " d_in"]:
    """Mean activation of the evaluation tokens, in raw units."""
    return subject.statistics.undo(subject.fidelity.sum_x / subject.fidelity.tokens).float()
