"""What the program reads off a job's settings: its composed config, checked, as plain containers."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Settings = Mapping[str, Any]


def has_lm(job: Settings) -> bool:
    """Whether activations come from a language model, and not from a known dictionary."""
    return "synthetic" not in job["model"]["source"]


def target(job: Settings) -> int | None:
    """The target L0; None where the coefficient is fixed, and L0 is what that leads to."""
    return job["sparsity"] if job["arch"]["coefficient"] is None else None


def device_of(job: Settings) -> torch.device:
    import torch

    return torch.device("cuda" if job["trainer"]["accelerator"] in ("gpu", "cuda") else "cpu")
