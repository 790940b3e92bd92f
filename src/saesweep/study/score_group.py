"""Scores the SAEs and controls of one text and language model, with the labels and the activations that they share."""
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from saesweep.config.settings import device_of
from saesweep.data.resources import Resources
from saesweep.lm.hooks import hook_point
from saesweep.lm.tokenizer import Tokenizer, byte_tokenizer
from saesweep.lm.unembedding import unembedding
from saesweep.runtime.console import ProgressLine
from saesweep.study.activations import FromText, activations_of
from saesweep.study.comparison.replicates import draw
from saesweep.study.dictionary import FromDictionary
from saesweep.study.embedder import located
from saesweep.study.hits import HALVES, Collected
from saesweep.study.kept_scores import KeptScores, Later
from saesweep.study.known_dictionary import KnownDictionary, Truth, feature_labels
from saesweep.study.labels import Labels, label
from saesweep.study.passes import on_device
from saesweep.study.scores.absorption import RowScores
from saesweep.study.scores.conditions import Conditions, conditions
from saesweep.study.scores.embedding import Embedder
from saesweep.study.scores.logits import LogitScores
from saesweep.study.scores.of_sae import Extra
from saesweep.study.scores.similarity import SimilarityScores
from saesweep.study.table import score_one
from saesweep.study.text import Text
from saesweep.study.weights import DenseRows, Weights

log = logging.getLogger(__name__)


class Group:
    """saes: of one text and language model, or of one known dictionary. What they share is made when one is scored."""

    def __init__(self, saes: Sequence[Collected], settings: Mapping[str, Any], resources: Resources) -> None:
        self.settings, self.resources, self.weights = settings, resources, Weights()
        self.kept = [KeptScores(one, settings) for one in saes]
        self.like = saes[0]
        self.job = on_device(self.like.config, settings["device"])
        points = [hook_point(one.config["model"], one.config["site"]["name"], one.config["layer"]) for one in saes]
        self.source = activations_of(self.job, list(dict.fromkeys(points)), settings, resources)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.source.tokenizer if isinstance(self.source, FromText) else byte_tokenizer(bos=False, positions=None)

    def score(self, one: KeptScores) -> None:
        """Score one of the group, and write its file."""
        _, extras = self._labels_and_extras
        asked = {key: self.settings[key] for key in ("features", "min_fires", "min_documents")}
        kept = one.extras(extras)
        one.write(score_one(one.sae, self._conditions, self._counts, self.tokenizer, **asked, extras=[kept]), kept)

    @cached_property
    def _conditions(self) -> tuple[Conditions, Conditions]:
        return conditions(self.like.fit.text, self.like.test.text, self._labels_and_extras[0])

    @cached_property
    def _counts(self) -> np.ndarray:
        return draw(len(self.like.test.text.documents), self.settings["draws"], self.settings["seed"])

    @cached_property
    def _labels_and_extras(self) -> tuple[Labels, list[Extra]]:
        return self._of_text(self.source) if isinstance(self.source, FromText) else _of_dictionary(self.source)

    def _of_text(self, source: FromText) -> tuple[Labels, list[Extra]]:
        settings, weights = self.settings, self.weights
        text: Text = {half: self.like.half(half).text for half in HALVES}
        kind = settings["labels"]
        kind = ("python" if self.job["text"]["kind"] == "stdlib" else "text") if kind == "auto" else kind
        ProgressLine()(f"labelling the tokens (labels={kind})")
        labels = label(kind, text["fit"], text["test"], source.tokenizer, min_tokens=settings["label_tokens"],
                       min_documents=settings["label_documents"])
        extras: list[Extra] = []
        if settings["logits"] and source.tokenizer.causal:
            extras.append(Later(self._logit_scores))
        elif settings["logits"]:
            log.info("logits=true: without effect: %s is an encoder, without an output embedding", self.job["model"]["name"])
        if settings["dense_probes"] and labels.names:
            extras.append(RowScores(DenseRows(source, text, weights), weights.decoder_array))
        if settings["embedding"]:
            embed = Embedder(located(settings["embedder"]), device_of(self.job))
            extras.append(SimilarityScores(embed, source.tokenizer, settings["embedding_latents"], settings["seed"]))
        return labels, extras

    def _logit_scores(self) -> LogitScores:
        model = self.resources.language_model(self.job)
        return LogitScores(unembedding(model.module), self.weights.decoder_of_resid)


def _of_dictionary(source: FromDictionary) -> tuple[Labels, list[Extra]]:
    """The labels are the features of the dictionary; there are no tokens."""
    truth: Truth = {half: source.features(half).numpy().astype(np.float64) for half in HALVES}
    return feature_labels(truth), [KnownDictionary(truth)]
