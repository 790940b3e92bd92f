"""What the groups of one sweep share: text, tokenizer, held-out blocks and language model, each loaded where it is first used.

The launcher makes one `Resources` and hands it down. One of each kind is kept, for as long as the next job asks for the same.
"""
from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from saesweep.config.settings import Settings, device_of

if TYPE_CHECKING:  # the launcher makes a Resources before torch is imported
    from saesweep.data.activation_split import Rows
    from saesweep.data.held_out import HeldOut
    from saesweep.data.own_activations import Own
    from saesweep.data.text import Corpus
    from saesweep.lm.hooks import HookPoint
    from saesweep.lm.models import LanguageModel
    from saesweep.lm.tokenizer import Tokenizer

log = logging.getLogger(__name__)
T = TypeVar("T")
OF_A_TEXT = ("text", "stream_seed", "model")
OF_A_LONG_ENOUGH_TEXT = (*OF_A_TEXT, "tokens", "batch_tokens", "context", "activations", "evaluation")


class Resources:
    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, Any]] = {}

    def _keep(self, kind: str, asked: Any, make: Callable[[], T]) -> T:
        """What was made for the same question, else a new one in its place."""
        if kind not in self._kept or self._kept[kind][0] != asked:
            self._kept.pop(kind, None)  # before the new one is made: two models may not fit
            self._kept[kind] = asked, make()
        return self._kept[kind][1]

    def text(self, job: Settings) -> tuple[Corpus, Tokenizer]:
        """The text of a job and what tokenises it; no weight is loaded."""
        from saesweep.data.mixture import corpus_of

        def make() -> tuple[Corpus, Tokenizer]:
            tokenizer = self._tokenizer(job)
            return corpus_of(job["text"], job["stream_seed"], tokenizer), tokenizer

        return self._keep("text", _plain(job, OF_A_TEXT), make)

    def require_long_enough_text(self, job: Settings) -> tuple[Corpus, Tokenizer]:
        """As `text`; raises UsageError where the text is too short for the job's training or evaluation."""
        from saesweep.data import text_length

        corpus, tokenizer = self.text(job)
        self._keep("long enough", _plain(job, OF_A_LONG_ENOUGH_TEXT), lambda: text_length.require_enough_tokens(
            corpus, tokenizer, job, lambda purpose, tokens: self.held_out(job, purpose, tokens)))
        return corpus, tokenizer

    def held_out(self, job: Settings, purpose: int, tokens: int) -> HeldOut:
        """The held-out blocks for the evaluation or the calibration of a job."""
        from saesweep.data import held_out

        corpus, tokenizer = self.text(job)
        asked = _plain(job, OF_A_TEXT), tokens, job["context"]
        return self._keep(f"held-out {purpose}", asked, lambda: held_out.held_out_blocks(
            corpus, tokenizer, purpose, tokens=tokens, context=job["context"], stream_seed=job["stream_seed"]))

    def own_activations(self, job: Settings) -> Own:
        """The rows of a job that brings its activations."""
        from saesweep.data import own_activations

        hook_name = job["site"]["hook_name"].format(layer=job["layer"])
        asked = job["model"]["source"]["activations"], job["stream_seed"], hook_name
        return self._keep("own activations", asked, lambda: own_activations.own_of(*asked))

    def own_rows(self, job: Settings, purpose: int, tokens: int) -> Rows:
        """Its held-out rows for the evaluation or the calibration."""
        own = self.own_activations(job)
        return self._keep(f"own rows {purpose}", (own, tokens), lambda: own.held_out(purpose, tokens))

    def language_model(self, job: Settings) -> LanguageModel:
        """One load serves the plan's probe and the groups after it, as long as the weights are the same."""
        from saesweep.lm import models

        asked, device = _of_model(job), str(device_of(job))
        return self._keep(
            "language model", (asked, device), lambda: models.load(job["model"], device, self._tokenizer(job)))

    def _tokenizer(self, job: Settings) -> Tokenizer:
        from saesweep.lm import models

        return self._keep("tokenizer", _of_model(job), lambda: models.load_tokenizer(job["model"]))

    def release_model(self) -> None:
        """Free the language model's memory; it is loaded again where it is needed next."""
        if self._kept.pop("language model", None):
            import torch

            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def forward_tokens(self, job: Settings, points: Sequence[HookPoint]) -> int:
        """Tokens per forward of the language model; `auto` is timed once."""
        wanted, window = job["activations"]["forward_tokens"], job["activations"]["window"]
        if wanted != "auto":
            return wanted
        asked = _plain(job, ("model", "trainer")), tuple(points), job["context"], window
        return self._keep("forward tokens", asked, lambda: self._fastest(job, points))

    def _fastest(self, job: Settings, points: Sequence[HookPoint]) -> int:
        from saesweep.data.forward_size import fastest_forward
        from saesweep.runtime import distributed

        share = job["activations"]["window"] // distributed.world_size()  # larger ones would leave ranks without any
        mine = fastest_forward(self.language_model(job), points, job["context"], share)
        tokens = min(distributed.all_gather(mine))
        log.info("activations.forward_tokens=auto: %s, about the fastest here", f"{tokens:,}")
        return tokens


def _of_model(job: Settings) -> tuple[str, Any]:
    """What determines its weights and its tokenizer."""
    from saesweep.lm import models

    return _plain(job, ("model",)), models.weights_identity(job["model"])


def _plain(job: Settings, keys: Sequence[str]) -> str:
    return json.dumps({key: job[key] for key in keys})
