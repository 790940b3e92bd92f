"""What the program reads off a job's settings: its composed config, checked, as plain containers."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saesweep.config.schema import NOT_THE_SAES

if TYPE_CHECKING:
    import torch

Settings = Mapping[str, Any]


def has_lm(job: Settings) -> bool:
    """Whether activations come from a language model, and not from a known dictionary or from elsewhere."""
    return "synthetic" not in (source := job["model"].get("source") or {}) and "activations" not in source


def own_activations(job: Settings) -> Mapping[str, Any] | None:
    """Where activations come from that the user brings (data/own_activations.py); None where a program computes them."""
    return job["model"]["source"].get("activations")


def transcodes(job: Settings) -> bool:
    """Whether its site gives another tensor to reconstruct than it reads."""
    return job["model"]["sites"][job["site"]["name"]].get("target") is not None


def not_for_a_study(job: Settings) -> str | None:
    """What a study, which shows text, cannot read; None where it can."""
    if own_activations(job) is not None:
        return "activations without a text (model.source.activations)"
    text = job.get("text") or {}
    for part in (text, *(text.get("of") or {}).values()):
        if part.get("kind") in ("tokens", "chat"):
            return f"text={part.get('name')}, whose tokens are given"
    return None


def target(job: Settings) -> int | None:
    """The target L0; None where the coefficient is fixed, and L0 is what that leads to."""
    return job["sparsity"] if job["arch"]["coefficient"] is None else None


def imported(job: Settings) -> Mapping[str, Any] | None:
    """Where an SAE comes from that others have trained (imported/); None of one that was trained here."""
    return job["arch"].get("imported")


def passes(job: Settings) -> int:
    """How often each harvested token is trained on."""
    return job["activations"].get("passes", 1)


def unique_tokens(job: Settings) -> int:
    """Tokens that are harvested for training, in whole batches; `tokens` counts each once per pass."""
    return math.ceil(job["tokens"] / (job["batch_tokens"] * passes(job))) * job["batch_tokens"]


def device_of(job: Settings) -> torch.device:
    import torch

    return torch.device("cuda" if job["trainer"]["accelerator"] in ("gpu", "cuda") else "cpu")


def loaded_with(model: Settings) -> dict[str, Any]:
    """model.load, under this key, as far as it determines the activations, and nothing where it does not."""
    load = {key: value for key, value in (model.get("load") or {}).items() if value is not None and key != "device_map"}
    return {"load": load} if load else {}


def own_settings(job: Settings) -> dict[str, Any]:
    """Those that determine the SAE: it resumes with the same ones only."""
    kept = {key: value for key, value in job.items() if key not in NOT_THE_SAES}
    kept |= {"model": _own_model(job)} if "model" in job else {}
    return kept | {"trainer": {"precision": (job.get("trainer") or {}).get("precision")}}


def _own_model(job: Settings) -> dict[str, Any]:
    """Without what others call it, and the transcoder's site where it is not used, which files of before have not."""
    model, used = job["model"], (job.get("site") or {}).get("name")
    sites = {site: at for site, at in model.get("sites", {}).items() if site == used or at.get("target") is None}
    kept = {key: value for key, value in model.items() if key not in ("hub_name", "load")} | loaded_with(model)
    return kept | ({"sites": sites} if "sites" in model else {})
