"""The names of curves: an architecture and, where a sweep varies further settings, their values (variants.py)."""
import math
import re

import pandas as pd

VARIANT = "variant"  # the column of `width=4096 lr=0.002`


def name(arch: str, variant: str) -> str:
    """`topk width=4096 lr=0.002`"""
    return f"{arch} {variant}".strip()


def by_curve(df: pd.DataFrame) -> pd.DataFrame:
    """The table of sweep_table.py with `arch` and `variant` together in `arch`: `topk width=4096 lr=0.002`."""
    if VARIANT not in df:
        return df
    return df.assign(arch=(df["arch"] + " " + df[VARIANT]).str.strip())


def by_arch(df: pd.DataFrame) -> pd.DataFrame:
    """The inverse of by_curve."""
    if VARIANT not in df:
        return df
    names = zip(df["arch"], df[VARIANT], strict=True)
    return df.assign(arch=[curve.removesuffix(variant).rstrip() for curve, variant in names])


def split(curve: str) -> tuple[str, dict[str, str]]:
    """The architecture of a curve's name, and its further settings."""
    words = curve.split(" ")
    first = next((i for i, word in enumerate(words) if "=" in word), len(words))
    return " ".join(words[:first]), dict(word.split("=", 1) for word in words[first:] if "=" in word)


def natural(text: str) -> list[tuple[float, str]]:
    """A key to sort by, for which width=512 comes before width=4096."""
    parts = re.split(r"(\d+\.?\d*(?:e[+-]?\d+)?)", text)
    return [(float(part), "") if i % 2 else (math.inf, part) for i, part in enumerate(parts)]
