"""The language model's loss with each SAE's reconstruction, zeros or the mean in place of the activations at a hook point.

The clean pass, and the ablated ones of each hook point, are computed once for all SAEs.
"""
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saesweep.data.micro_batches import lm_input, ordinary_positions
from saesweep.data.normalisation import Statistics
from saesweep.evaluation.metrics import CrossEntropy, by_document, spliced
from saesweep.evaluation.subject import Subject
from saesweep.lm.hooks import HookPoint, blocks_before, recorded, replace_output, replayed
from saesweep.lm.losses import losses_at
from saesweep.lm.models import LanguageModel


@contextmanager
def spliced_in(
    lm: nn.Module, point: HookPoint, statistics: Statistics, at: Callable[[], Tensor | bool], fn: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Every forward pass inside the `with` block has fn(x) where the reconstruction goes, except at sinks, and only at the
    positions `at()` of that pass. fn maps what the SAE reads, [tokens, d_in] in fp32, to [tokens, d_out]."""

    def reconstructed(x: Tensor, y: Tensor) -> Tensor:
        where = (statistics.ordinary(x) if point.target is None else statistics.ordinary(x, y)) & at()
        new = y.clone()
        new[where] = fn(x[where].float()).to(y.dtype)
        return new

    with replace_output(lm, point, reconstructed):
        yield


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
        loss.add(losses_at(lm.module, self.tokens, self.at), self.at.sum(1).tolist())


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
        with recorded(self.unchanged.values()) as self.outputs:
            batch.score(self.lm, self.clean)
        for point, mean in self.means.items():
            with self._replaced(point, ordinary, lambda x, mean=mean: mean.new_zeros(len(x), len(mean))):
                batch.score(self.lm, self.zero[point])
            with self._replaced(point, ordinary, lambda x, mean=mean: mean.expand(len(x), -1)):
                batch.score(self.lm, self.mean[point])
        for subject in (s for s in self.subjects if s.failed is None):
            with subject.isolate_failures(), self._replaced(subject.point, ordinary, subject.sae):
                batch.score(self.lm, subject.ce)

    @contextmanager
    def _replaced(
        self, point: HookPoint, ordinary: Bool[Tensor, "batch pos"], fn: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Apply fn at the hook point in a forward pass of the clean pass's tokens, without computing earlier blocks again."""
        with (
            replayed(self.unchanged[point], self.outputs),
            spliced_in(self.lm.module, point, self.statistics[point], lambda: ordinary, fn),
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


def _raw_mean(subject: Subject) -> Float[Tensor, " d_out"]:
    """Mean of what is reconstructed, over the evaluation tokens, in raw units."""
    return subject.statistics.output.undo(subject.fidelity.sum_x / subject.fidelity.tokens).float()
