"""The numbers of an SAE on all held-out documents, and on all but one of them in turn: [1 + documents]."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray as Array


class Numbers(NamedTuple):
    """Row 0 is as it was measured. An SAE whose documents are not known has that row alone."""

    l0: Float[Array, " rows"]
    value: Float[Array, " rows"]
    weights: Float[Array, " documents"]  # of each document in the value; empty where they are not known
    text: int  # the number of the text that it was measured on; -1: not known
    scale: float  # of the value: its size, and for a difference of losses at least 5% of the loss itself


def numbers(points: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str) -> list[Numbers]:
    """Of each of the points (rows of outputs.table), from its sums by document."""
    texts, found = list[pd.DataFrame](), []
    for (l0, value), own in zip(points[["l0", measure]].to_numpy(float), documents, strict=True):
        text = -1 if own is None else _number(own, texts, measure)
        left_out = None if own is None else _left_out(own, measure)
        without, weights = ((np.empty(0), np.empty(0)), np.empty(0)) if left_out is None else (left_out[:2], left_out[2])
        rows = np.append(l0, without[0]), np.append(value, without[1])
        found.append(Numbers(*rows, weights, text, _scale(value, own, measure)))
    return found


def _scale(value: float, own: pd.DataFrame | None, measure: str) -> float:
    if measure == "fvu" or own is None or not {"nats_clean", "scored"} <= set(own):
        return abs(value)
    return max(abs(value), 0.05 * float(own["nats_clean"].sum() / max(1.0, own["scored"].sum())))


def _number(own: pd.DataFrame, texts: list[pd.DataFrame], measure: str) -> int:
    """Of its text; a new one is added to the texts. -1 where it was not measured by document."""
    if not {"tokens", "variance"} <= set(own) or (measure != "fvu" and not {"scored", "nats_clean"} <= set(own)):
        return -1
    number = next((i for i, other in enumerate(texts) if _same_text(own, other, measure)), len(texts))
    if number == len(texts):
        texts.append(own)
    return number


def _same_text(own: pd.DataFrame, other: pd.DataFrame, measure: str) -> bool:
    """As many tokens in each document, and of each the same share of the variance (which is in units of the training)."""
    counted = ["tokens"] if measure == "fvu" else ["tokens", "scored"]
    if len(own) != len(other) or any((own[key].to_numpy(float) != other[key].to_numpy(float)).any() for key in counted):
        return False
    shares = [table["variance"].to_numpy(float) / table["variance"].sum() for table in (own, other)]
    losses = [table["nats_clean"].to_numpy(float) if measure != "fvu" else np.zeros(1) for table in (own, other)]
    return np.allclose(*shares, rtol=0.01, atol=1e-6) and np.allclose(*losses, rtol=0.05, atol=0.1)


def _left_out(own: pd.DataFrame, measure: str) -> tuple[Array, Array, Array] | None:
    """l0 and value without each document, and the documents' weights; None where it was not measured by document."""
    weighted = "variance" if measure == "fvu" else "scored"
    needed = ("error",) if measure == "fvu" else ("nats_sae", "nats_clean")
    if not {"tokens", "active", weighted, *needed} <= set(own):
        return None
    tokens, active, weights, *parts = (own[key].to_numpy(float) for key in ("tokens", "active", weighted, *needed))
    lost = parts[0] if measure == "fvu" else parts[0] - parts[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # of one document nothing is left
        return _without(active) / _without(tokens), _without(lost) / _without(weights), weights


def _without(parts: Float[Array, " documents"]) -> Float[Array, " documents"]:
    """The sum of all but each."""
    return parts.sum() - parts
