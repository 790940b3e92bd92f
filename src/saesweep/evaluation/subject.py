"""One SAE under evaluation: its fidelity on held-out activations, and the result."""
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder
from saesweep.data.normalisation import Statistics, require_finite
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import NOT_SPLICED, CrossEntropy, Fidelity
from saesweep.evaluation.parts import Part, Parts
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.isolate import isolate_failures

log = logging.getLogger(__name__)
AT_A_TIME, AT_A_TIME_ON_CPU = 2048, 256  # tokens, as their latents are dense: on a CPU they stay in its cache


class Measured(NamedTuple):
    """The evaluation of one SAE."""

    numbers: dict[str, float | None]  # docs/metrics.md
    documents: dict[str, list[float]]  # the sums behind them, by document
    frequency: list[float]  # share of tokens on which each latent is active
    parts: list[Part]  # of a Matryoshka and the like


@dataclass
class Subject:
    """One folded SAE under evaluation: it encodes and reconstructs raw activations."""

    sae: SparseAutoencoder
    point: HookPoint
    statistics: Statistics
    fidelity: Fidelity = field(init=False)
    parts: Parts = field(init=False)
    ce: CrossEntropy = field(default_factory=CrossEntropy)
    sinks: int = 0
    failed: Exception | None = None

    def start(self, documents: int) -> None:
        """Reset the sums, for activations of so many documents."""
        output = self.statistics.output
        self.fidelity = Fidelity(self.sae.d_out, self.sae.d_sae, output.mean, output.scale, documents)
        self.parts = Parts(self.sae)

    def isolate_failures(self) -> AbstractContextManager[None]:
        """An exception inside is logged and kept in `failed`; one that says that memory has run out is raised."""
        def keep(error: Exception) -> None:
            known = isinstance(error, UsageError)
            log.error("the evaluation of an SAE at %s failed: %s", self.point, error, exc_info=not known)
            self.failed = error

        return isolate_failures(keep)

    def measure(
        self, x: Float[Tensor, "tokens d_in"], documents: Int[Tensor, " tokens"], y: Float[Tensor, "tokens d_out"] | None = None
    ) -> None:
        """Add raw activations, of which sinks are left out, and for a transcoder those of its target; `documents`: the document
        of each token. Raises UsageError."""
        tensors = [x] if y is None else [x, y]
        for rows, tensor in zip(tensors, self.point.tensors, strict=True):
            require_finite(rows, tensor)
        ordinary = self.statistics.ordinary(*tensors)
        self.sinks += int((~ordinary).sum())
        kept = documents[ordinary.cpu()], *(rows[ordinary].float() for rows in tensors)
        for numbers, part, *target in zip(*(rows.split(measured_at_a_time(x)) for rows in kept), strict=True):
            f = self.sae.encode(part)
            self.fidelity.add(target[0] if target else part, f, self.sae.with_skip(self.sae.decode(f), part), numbers)
            self.parts.add(part, f, *target)

    def require_measured(self) -> None:
        """Raises UsageError where no token was measured, or sums are not finite."""
        if self.fidelity.tokens == 0:
            raise UsageError(f"activations.max_norm: all {self.sinks:,} held-out tokens at {self.point} are sinks by it; write "
                             "a larger number, or null")
        if not bool(self.fidelity.by_document.isfinite().all()):
            raise UsageError(f"the reconstruction at {self.point} is not finite on held-out tokens: lower arch.optimizer.lr")

    def result(self, more: Mapping[str, float | None], by: Mapping[str, list[float]] | None = None) -> Measured | Exception:
        """The metrics with `more`, and the sums per document with those of `by`; or the exception that isolated the SAE."""
        if self.failed:
            return self.failed
        numbers = {**self.fidelity.result(), **NOT_SPLICED, **more, "sinks": self.sinks}
        variance = None if numbers["fvu"] is None else float(self.fidelity.variance.sum()) * self.statistics.output.scale**2
        documents = {**self.fidelity.documents(), **(by or {})}
        count = max(map(len, documents.values()))  # documents of which predictions alone are scored come last
        documents = {key: [*sums, *[0.0] * (count - len(sums))] for key, sums in documents.items()}
        return Measured(numbers, documents, self.fidelity.frequency.tolist(), self.parts.result(variance))


def measured_at_a_time(x: Tensor) -> int:
    return AT_A_TIME_ON_CPU if x.is_cpu else AT_A_TIME


def measure_rows(
    subjects: Sequence[Subject], x: Float[Tensor, "tokens d_in"], documents: Int[Tensor, " tokens"]
) -> None:
    """Fidelity on all raw activations that there are, where no language model computes them."""
    for subject in subjects:
        subject.start(int(documents.max()) + 1)
        with subject.isolate_failures():
            subject.measure(x, documents)
            subject.require_measured()
