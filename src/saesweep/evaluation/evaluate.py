"""Held-out evaluation: fidelity on many tokens, and the language model's loss with each SAE spliced in on some of them.

Sinks and special tokens are neither measured nor replaced.
"""
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from saesweep.data.held_out import HeldOut
from saesweep.data.scored import Scored
from saesweep.evaluation.splicing import SplicedPasses
from saesweep.evaluation.subject import Measured, Subject
from saesweep.lm.hooks import Rows
from saesweep.lm.models import LanguageModel

log = logging.getLogger(__name__)
Progress = Callable[[str], None]
BLOCKS = 16  # whose activations are in memory at a time


@torch.no_grad()
def evaluate(
    lm: Callable[[], LanguageModel], rows: Callable[[Tensor], Rows], held_out: HeldOut, scored: Scored | None,
    subjects: Sequence[Subject], *, forward_tokens: int, progress: Progress = lambda line: None,
) -> list[Measured | Exception]:
    """The metrics of each SAE except those of its training, or the exception that isolated it.

    rows: the activations of some blocks. scored: what the spliced passes predict; None: there are none, and lm is not called.
    """
    for subject in subjects:
        subject.start(held_out.count)
    _measure_fidelity(rows, held_out, subjects, progress)
    able = [subject for subject in subjects if subject.failed is None]
    if scored is None or not able:
        return [subject.result({}) for subject in subjects]
    passes = SplicedPasses(lm(), able)
    _run_passes(passes, scored, forward_tokens, progress)
    if passes.clean.result() is None:
        why = "the language model's own loss is not finite" if sum(passes.clean.tokens) else "no prediction is of ordinary text"
        log.warning("evaluation.lm_tokens: %s, so the loss with an SAE spliced in is left out", why)
        return [subject.result({}) for subject in subjects]
    return [s.failed or s.result(passes.result(s), passes.by_document(s, scored.documents)) for s in subjects]


def _measure_fidelity(
    rows: Callable[[Tensor], Rows], held_out: HeldOut, subjects: Sequence[Subject], progress: Progress
) -> None:
    done = 0
    for part in held_out.split(BLOCKS):
        progress(f"fidelity: {done:,} of {held_out.tokens.numel():,} held-out tokens")
        done += part.tokens.numel()
        read = rows(part.tokens)
        for subject in (s for s in subjects if s.failed is None):
            x, *target = subject.point.of(read)
            with subject.isolate_failures():
                subject.measure(x, part.of_tokens, *target)
    for subject in (s for s in subjects if s.failed is None):
        with subject.isolate_failures():
            subject.require_measured()


def _run_passes(passes: SplicedPasses, scored: Scored, forward_tokens: int, progress: Progress) -> None:
    done, all_of_them = 0, int(scored.at.sum())
    for tokens, at in scored.parts(forward_tokens):
        progress(f"language model's loss: {done:,} of {all_of_them:,} predictions")
        passes.add(tokens, at)
        done += int(at.sum())
