"""The harvest of a language model up to its default layer, at several sizes of the micro-batch.

Random weights in the shapes of a model need no download and take the same time. `TFLOP/s`: two operations for each weight of
the blocks that run, and token; attention is not counted.
"""
from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf

from benchmarks.gpu import timing
from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import ROOT
from saesweep.data.harvest import harvest
from saesweep.errors import UsageError
from saesweep.lm import models
from saesweep.lm.hooks import blocks_before, hook_point
from saesweep.lm.models import LanguageModel


def run(section: Section) -> None:
    for model in map(settings, section.sizes["models"]):
        section.each([(model["name"], partial(_measure, section, model))])


def settings(model: str | dict[str, Any]) -> dict[str, Any]:
    """Of a file of conf/model; or of random weights with the hook points of Gemma."""
    known: Any = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/model/{model if isinstance(model, str) else 'tiny'}.yaml"))
    if isinstance(model, str):
        return known
    return known | {key: model[key] for key in ("name", "layer", "layers")} | {"source": {"random": model["random"]}}


def _measure(section: Section, model: dict[str, Any]) -> None:
    try:
        with section.device if "random" in model["source"] else nullcontext():  # random weights are drawn there
            lm = models.load(model | {"dtype": section.sizes["dtype"]}, str(section.device))
    except UsageError as error:
        section.note(f"{model['name']}: {error}")
        return
    loaded = str(lm.module.config._attn_implementation)
    for attention in (loaded, *(other for other in section.sizes["attention"] if other != loaded)):
        section.each((f"{model['name']}, {attention}, {tokens:,} tokens", _sized(section, model, lm, attention, tokens))
                     for tokens in section.sizes["tokens"])


def _sized(section: Section, model: dict[str, Any], lm: LanguageModel, attention: str, tokens: int) -> Callable[[], None]:
    sizes, point = section.sizes, hook_point(model, "resid", model["layer"])
    shape = (tokens // sizes["context"], sizes["context"])

    def measure() -> None:
        lm.module.set_attn_implementation(attention)
        first = 1 + max(lm.tokenizer.special)
        ids = torch.randint(first, lm.tokenizer.vocab_size, shape, generator=torch.Generator().manual_seed(0))
        timing.forget_peak(section.device)
        times = timing.milliseconds(lambda: harvest(lm, [point], ids), section.device, sizes["rounds"], sizes["seconds"])
        ms, weights = statistics.median(times), [p for block in blocks_before(lm.module, point) for p in block.parameters()]
        rates = {"tokens/s": 1e3 * tokens / ms, "TFLOP/s": 2 * tokens * sum(p.numel() for p in weights) / ms / 1e9}
        section.row(f"{model['name']}, {sizes['dtype']}, {point}, context {sizes['context']:,}", attention=attention,
                    tokens=tokens, ms=ms, **rates, **{"peak, GB": timing.peak_gigabytes(section.device)})

    return measure
