"""The harvest of a language model up to its default layer, at several sizes of the micro-batch.

Random weights in the shapes of a model need no download and take the same time. `TFLOP/s`: two operations for each weight of
the blocks that run, and token; attention is not counted.
"""
from __future__ import annotations

import statistics
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
    for attention in (None, *section.sizes["attention"]):
        for model in map(settings, section.sizes["models"]):
            what = f"{model['name']}, {attention or 'as it is loaded'}"
            section.each([(what, partial(_measure, section, model, attention))])


def settings(model: str | dict[str, Any]) -> dict[str, Any]:
    """Of a file of conf/model; or of random weights with the hook points of Gemma."""
    known: Any = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/model/{model if isinstance(model, str) else 'tiny'}.yaml"))
    if isinstance(model, str):
        return known
    return known | {key: model[key] for key in ("name", "layer", "layers")} | {"source": {"random": model["random"]}}


def _measure(section: Section, model: dict[str, Any], attention: str | None) -> None:
    try:
        with section.device if "random" in model["source"] else nullcontext():  # random weights are drawn there
            lm = models.load(model | {"dtype": section.sizes["dtype"]}, str(section.device))
    except UsageError as error:
        section.note(f"{model['name']}: {error}")
        return
    if attention is not None:
        lm.module.set_attn_implementation(attention)
    section.each((f"{tokens:,} tokens", partial(_harvest, section, model, lm, tokens)) for tokens in section.sizes["tokens"])


def _harvest(section: Section, model: dict[str, Any], lm: LanguageModel, tokens: int) -> None:
    sizes, point = section.sizes, hook_point(model, "resid", model["layer"])
    shape, random = (tokens // sizes["context"], sizes["context"]), torch.Generator().manual_seed(0)
    ids = torch.randint(lm.tokenizer.vocab_size, shape, generator=random)
    timing.forget_peak(section.device)
    times = timing.milliseconds(lambda: harvest(lm, [point], ids), section.device, sizes["rounds"], sizes["seconds"])
    ms, weights = statistics.median(times), [p for block in blocks_before(lm.module, point) for p in block.parameters()]
    rates = {"tokens/s": 1e3 * tokens / ms, "TFLOP/s": 2 * tokens * sum(p.numel() for p in weights) / ms / 1e9}
    section.row(f"{model['name']}, {sizes['dtype']}, {point}, context {sizes['context']:,}", tokens=tokens,
                attention=lm.module.config._attn_implementation, ms=ms, **rates,
                **{"peak, GB": timing.peak_gigabytes(section.device)})
