"""The language model's loss with an SAE's ablated reconstructions in place of the activations at a hook point.

Of the clean pass, the activations there and the output of the last block before are kept: every spliced pass begins there,
and all ablations of an SAE share one encoding.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from saesweep.data.micro_batches import ordinary_positions
from saesweep.data.scored import Scored
from saesweep.evaluation.metrics import CrossEntropy, by_document
from saesweep.evaluation.splicing import Batch
from saesweep.lm.hooks import HookPoint, blocks_before, edit, recorded, replayed
from saesweep.lm.models import LanguageModel
from saesweep.study.ablation.latents import Ablation
from saesweep.training.loaded import LoadedSAE


class CleanPart(NamedTuple):
    """A micro-batch of the clean pass."""

    batch: Batch
    ordinary: Bool[Tensor, "batch pos"]
    x: Float[Tensor, "batch pos d_in"]
    outputs: Mapping[nn.Module, Any]  # of the last block before the hook point


class Splices:
    """Spliced passes over the same blocks for all SAEs of a hook point."""

    def __init__(self, lm: LanguageModel, point: HookPoint, scored: Scored, forward_tokens: int) -> None:
        self.lm, self.point, self.documents, self.clean = lm, point, scored.documents, CrossEntropy()
        self.blocks = blocks_before(lm.module, point)
        self.parts = [self._clean(*part) for part in scored.parts(forward_tokens)]

    @property
    def scored(self) -> list[float]:
        """Tokens whose prediction is scored, per document."""
        return by_document(self.clean.tokens, self.documents)

    @property
    def nats_clean(self) -> list[float]:
        return self._nats(self.clean)

    @torch.no_grad()
    def nats(
        self, sae: LoadedSAE, ablations: Sequence[Ablation], progress: Callable[[float], None] = lambda share: None
    ) -> list[list[float]]:
        """The sum of the losses per document, for each ablation. progress: called with the share that is done."""
        losses = [CrossEntropy() for _ in ablations]
        for number, part in enumerate(self.parts):
            progress(number / len(self.parts))
            at = part.ordinary & sae.statistics.ordinary(part.x)
            f = sae.encode(part.x[at].float())
            x_hat = sae.decode(f)
            for one, loss in zip(ablations, losses, strict=True):
                spliced = part.x.clone()
                spliced[at] = (x_hat + one.change(f, sae.W_dec)).to(spliced.dtype)
                self._score(part, spliced, loss)
        return [self._nats(loss) for loss in losses]

    @torch.no_grad()
    def _clean(self, tokens: Int64[Tensor, "batch pos"], at: Bool[Tensor, "batch pos"]) -> CleanPart:
        batch, seen = Batch.of(tokens, at, self.lm), list[Tensor]()
        ordinary = ordinary_positions(tokens, self.lm.tokenizer).to(batch.at.device)

        def keep(x: Tensor) -> Tensor:
            seen.append(x)
            return x

        with recorded([self.blocks]) as outputs, edit(self.lm.module, self.point, keep):
            batch.score(self.lm, self.clean)
        return CleanPart(batch, ordinary, seen[0], outputs)

    def _score(self, part: CleanPart, x: Float[Tensor, "batch pos d_in"], loss: CrossEntropy) -> None:
        with replayed(self.blocks, part.outputs), edit(self.lm.module, self.point, lambda _: x):
            part.batch.score(self.lm, loss)

    def _nats(self, loss: CrossEntropy) -> list[float]:
        return by_document(loss.nats, self.documents)
