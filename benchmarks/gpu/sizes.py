"""The numbers of sizes.yaml and devices.yaml."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SIZES = yaml.safe_load((HERE / "sizes.yaml").read_text())
DEVICES: dict[str, dict[str, float]] = yaml.safe_load((HERE / "devices.yaml").read_text())["devices"]
CAPABILITIES: dict[int, dict[str, Any]] = yaml.safe_load((HERE / "devices.yaml").read_text())["capabilities"]
SECTIONS: dict[str, dict[str, Any]] = SIZES["sections"]


def of_section(name: str, dry_run: bool) -> dict[str, Any]:
    return SIZES["dry_run" if dry_run else "gpu"].get(name, {})


def known_device(name: str) -> dict[str, float] | None:
    """The datasheet's rates of a GPU with this name."""
    return next((rates for known, rates in DEVICES.items() if re.search(rf"\b{known}\b", name)), None)
