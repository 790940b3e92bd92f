"""Held-out evaluation: fidelity on many tokens, and the language model's loss with each SAE spliced in on some of them.

Sinks and special tokens are neither measured nor replaced. What does not depend on an SAE (the clean pass, and the
zero- and mean-ablated ones of each hook point) is computed once and shared by all.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.data.held_out import HeldOut, blocks_of
from saesweep.data.micro_batches import micro_batches, ordinary_positions
from saesweep.data.normalisation import Statistics, require_finite
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import NOT_SPLICED, CrossEntropy, Fidelity, by_document, spliced
from saesweep.lm.hooks import HookPoint, Rows, blocks_before, edit, recorded, replayed
from saesweep.lm.models import LanguageModel
from saesweep.runtime.isolate import isolate_failures

log = logging.getLogger(__name__)
Progress = Callable[[str], None]


class Measured(NamedTuple):
    """What an evaluation says of one SAE."""

    numbers: dict[str, float | None]  # section "Metrics" of the README
    documents: dict[str, list[float]]  # the sums that they are made of, by document
    frequency: list[float]  # share of the tokens on which each latent is active


@dataclass
class Subject:
    """One folded SAE under evaluation: it reads and writes raw activations."""

    sae: SparseAutoencoder
    point: HookPoint
    statistics: Statistics
    fidelity: Fidelity = field(init=False)
    ce: CrossEntropy = field(default_factory=CrossEntropy)
    sinks: int = 0
    failed: Exception | None = None

    def measure_by(self, documents: int) -> None:
        """So many documents are to come."""
        self.fidelity = Fidelity(self.sae.d_in, self.sae.d_sae, self.statistics.mean, self.statistics.scale, documents)

    def failing_alone(self) -> AbstractContextManager[None]:
        def failed(error: Exception) -> None:
            known = isinstance(error, UsageError)
            log.error("the evaluation of an SAE at %s failed: %s", self.point, error, exc_info=not known)
            self.failed = error

        return isolate_failures(failed)

    def measure(self, x: Float[Tensor, "tokens d_in"], documents: Int[Tensor, " tokens"]) -> None:
        require_finite(x, self.point)
        ordinary = self.statistics.ordinary(x)
        self.sinks += int((~ordinary).sum())
        parts = zip(x[ordinary].float().split(2048), documents[ordinary.cpu()].split(2048), strict=True)
        for part, numbers in parts:
            f = self.sae.encode(part)
            self.fidelity.add(part, f, self.sae.decode(f), numbers)

    def require_measured(self) -> None:
        """Raises UsageError where there is no number, or none that is finite."""
        if self.fidelity.tokens == 0:
            raise UsageError(f"activations.max_norm: all {self.sinks:,} held-out tokens at {self.point} are sinks by it; write "
                             "a larger number, or null")
        if not bool(self.fidelity.by_document.isfinite().all()):
            raise UsageError(f"the reconstruction at {self.point} is not finite on held-out tokens: lower arch.optimizer.lr")

    def measured(self, more: Mapping[str, float | None], by: Mapping[str, list[float]] | None = None) -> Measured | Exception:
        if self.failed:
            return self.failed
        numbers = self.fidelity.result() | NOT_SPLICED | more | {"sinks": self.sinks}
        return Measured(numbers, self.fidelity.documents() | (by or {}), self.fidelity.frequency.tolist())


@torch.no_grad()
def evaluate(
    lm: Callable[[], LanguageModel], rows: Callable[[Tensor], Rows], held_out: HeldOut,
    subjects: Sequence[Subject], *, lm_tokens: int, forward_tokens: int, progress: Progress = lambda line: None,
) -> list[Measured | Exception]:
    """What each SAE's numbers are, but for those that training knows; or what went wrong with it.

    `rows` gives the activations of some blocks; the language model is asked for only where lm_tokens is above 0.
    """
    tokens = held_out.tokens
    for subject in subjects:
        subject.measure_by(held_out.count)
    for i, (part, documents, ordinary) in enumerate(zip(*(x.split(16) for x in held_out), strict=True)):
        progress(f"fidelity: {i * 16 * tokens.shape[1]:,} of {tokens.numel():,} held-out tokens")
        of_tokens = torch.repeat_interleave(documents, ordinary)
        for point, x in rows(part).items():
            for subject in (s for s in subjects if s.point == point and s.failed is None):
                with subject.failing_alone():
                    subject.measure(x, of_tokens)
    for subject in (s for s in subjects if s.failed is None):
        with subject.failing_alone():
            subject.require_measured()
    able = [s for s in subjects if s.failed is None]
    if lm_tokens == 0 or not able:
        return [s.measured({}) for s in subjects]
    passes = _Passes(lm(), list(dict.fromkeys(s.point for s in able)), able)
    some = tokens[: blocks_of(held_out, lm_tokens)]
    done = 0
    for part in micro_batches(some, forward_tokens):
        progress(f"language model's loss: {done:,} of {some.numel():,} tokens")
        passes.add(part)
        done += part.numel()
    if passes.clean.result() is None:
        why = "the language model's own loss is not finite" if sum(passes.clean.tokens) else "no prediction is of ordinary text"
        log.warning("evaluation.lm_tokens=%d: %s, so nothing is known of the loss with an SAE spliced in", lm_tokens, why)
        return [s.measured({}) for s in subjects]
    return [s.failed or s.measured(passes.result(s), passes.by_document(s, held_out)) for s in subjects]


def replaced(
    x: Float[Tensor, "batch pos d_in"], at: Bool[Tensor, "batch pos"], fn: Callable[[Tensor], Tensor]
) -> Float[Tensor, "batch pos d_in"]:
    """fn takes and gives [tokens d_in] in fp32."""
    x = x.clone()
    x[at] = fn(x[at].float()).to(x.dtype)
    return x


class _Passes:
    """The clean, ablated and spliced forward passes over the same blocks."""

    def __init__(self, lm: LanguageModel, points: Sequence[HookPoint], subjects: Sequence[Subject]):
        self.lm, self.subjects = lm, subjects
        self.statistics = {s.point: s.statistics for s in subjects}
        self.means = {s.point: _raw_mean(s) for s in subjects}
        self.unchanged = {point: blocks_before(lm.module, point) for point in points}
        self.clean = CrossEntropy()
        self.zero = {point: CrossEntropy() for point in points}
        self.mean = {point: CrossEntropy() for point in points}

    def add(self, tokens: Int[Tensor, "batch context"]) -> None:
        device = next(self.lm.module.parameters()).device
        ordinary = ordinary_positions(tokens, self.lm.tokenizer).to(device)
        tokens = tokens.clamp(min=0).to(device)
        with recorded(max(self.unchanged.values(), key=len)) as self.outputs:
            self.clean.add(self._logits(tokens), tokens, ordinary)
        for point, mean in self.means.items():
            with self._replaced(point, ordinary, torch.zeros_like):
                self.zero[point].add(self._logits(tokens), tokens, ordinary)
            with self._replaced(point, ordinary, lambda x, mean=mean: mean.expand_as(x)):
                self.mean[point].add(self._logits(tokens), tokens, ordinary)
        for subject in (s for s in self.subjects if s.failed is None):
            with subject.failing_alone(), self._replaced(subject.point, ordinary, subject.sae):
                subject.ce.add(self._logits(tokens), tokens, ordinary)

    def _logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        return self.lm.module(input_ids=tokens, use_cache=False).logits

    @contextmanager
    def _replaced(
        self, point: HookPoint, ordinary: Bool[Tensor, "batch pos"], fn: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """A forward of the same tokens as the clean one: what comes before the hook point is not computed again."""
        statistics = self.statistics[point]

        with (
            replayed(self.unchanged[point], self.outputs),
            edit(self.lm.module, point, lambda x: replaced(x, ordinary & statistics.ordinary(x), fn)),
        ):
            yield

    def result(self, subject: Subject) -> Mapping[str, float | None]:
        zero, mean = self.zero[subject.point].result(), self.mean[subject.point].result()
        return spliced(self.clean.result(), subject.ce.result(), zero, mean)

    def by_document(self, subject: Subject, held_out: HeldOut) -> dict[str, list[float]]:
        """delta_loss = (sum nats_sae - sum nats_clean) / sum scored; nothing where the SAE's loss is not finite."""
        if subject.ce.result() is None:
            return {}
        values = {"scored": self.clean.tokens, "nats_clean": self.clean.nats, "nats_sae": subject.ce.nats}
        return {key: by_document(found, held_out.documents, held_out.count) for key, found in values.items()}


def _raw_mean(subject: Subject) -> Float[Tensor, " d_in"]:
    """Of the evaluation tokens, in raw units."""
    return subject.statistics.undo(subject.fidelity.sum_x / subject.fidelity.tokens).float()
