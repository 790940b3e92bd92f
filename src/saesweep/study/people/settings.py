"""The settings of a rating session: conf/rate.yaml."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml

from saesweep.errors import UsageError
from saesweep.runtime import program

FILE = "conf/rate.yaml"
AT_LEAST_ONE = ("features", "top", "spread", "draws")
SHARES = {"common": 1.0, "control": 0.5, "repeated": 0.5}  # their largest values
PER_SESSION = ("features", "common", "control", "repeated", "seed")  # what determines who gets which latents


@dataclass(frozen=True)
class RateSettings:
    """The keys of conf/rate.yaml, which says what each is."""

    features: int
    common: float
    control: float
    repeated: float
    top: int
    spread: int
    seed: int
    draws: int
    delta: float
    expected: float
    power: float


def settings(changes: Mapping[str, Any] | None = None) -> RateSettings:
    """Those of conf/rate.yaml with some changed. Raises UsageError for unknown keys and values out of range."""
    values = yaml.safe_load((program.root() / FILE).read_text()) | dict(changes or {})
    known = [field.name for field in fields(RateSettings)]
    for key in values:
        if key not in known:
            raise UsageError(f"rate.{key}: there is no such key; there are {', '.join(known)}")
    for key in AT_LEAST_ONE:
        if values[key] < 1:
            raise UsageError(f"rate.{key}={values[key]}: must be at least 1")
    for key, most in SHARES.items():
        if not 0 <= values[key] <= most:
            raise UsageError(f"rate.{key}={values[key]}: is a share, from 0 to {most:g}")
    return RateSettings(**values)
