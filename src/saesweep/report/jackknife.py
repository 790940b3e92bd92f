"""Jackknife replicates of an SAE's numbers: on all held-out documents, and without each of them. [1 + documents]."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray as Array


class Replicates(NamedTuple):
    """Row 0 is the measurement; it is the only row of an SAE without sums by document."""

    l0: Float[Array, " rows"]
    value: Float[Array, " rows"]
    weights: Float[Array, " documents"]  # of each document in the value; empty where unknown
    text: int  # index of the held-out text; -1: unknown
    scale: float  # magnitude of the value; for a difference of losses at least 5% of the loss itself


def replicates(points: pd.DataFrame, documents: Sequence[pd.DataFrame | None], measure: str) -> list[Replicates]:
    """One per point (row of sweep_table.table), from its sums by document."""
    texts, found = list[pd.DataFrame](), []
    for (l0, value), own in zip(points[["l0", measure]].to_numpy(float).tolist(), documents, strict=True):
        if measure == "fvu" and own is not None and "tokens" in own:
            own = own.loc[own["tokens"] > 0]  # of the others predictions alone are scored
        text = -1 if own is None else _text_index(own, texts, measure)
        left_out = None if own is None else _leave_one_out(own, measure)
        l0s, values, weights = left_out or (np.empty(0), np.empty(0), np.empty(0))
        found.append(Replicates(np.append(l0, l0s), np.append(value, values), weights, text, _scale(value, own, measure)))
    return found


def _scale(value: float, own: pd.DataFrame | None, measure: str) -> float:
    if measure == "fvu" or own is None or not {"nats_clean", "scored"} <= set(own):
        return abs(value)
    return max(abs(value), 0.05 * float(own["nats_clean"].to_numpy().sum() / max(1.0, own["scored"].to_numpy().sum())))


def _text_index(own: pd.DataFrame, texts: list[pd.DataFrame], measure: str) -> int:
    """The index of the text in `texts`, to which a new one is appended. -1 where there are no sums by document."""
    if not {"tokens", "variance"} <= set(own) or (measure != "fvu" and not {"scored", "nats_clean"} <= set(own)):
        return -1
    index = next((i for i, other in enumerate(texts) if _same_text(own, other, measure)), len(texts))
    if index == len(texts):
        texts.append(own)
    return index


def _same_text(own: pd.DataFrame, other: pd.DataFrame, measure: str) -> bool:
    """Equal numbers of tokens in each document, and equal shares of the variance (whose unit depends on the training)."""
    counted = ["tokens"] if measure == "fvu" else ["tokens", "scored"]
    if len(own) != len(other) or any((own[key].to_numpy(float) != other[key].to_numpy(float)).any() for key in counted):
        return False
    shares = [table["variance"].to_numpy(float) / table["variance"].sum() for table in (own, other)]
    losses = [table["nats_clean"].to_numpy(float) if measure != "fvu" else np.zeros(1) for table in (own, other)]
    return np.allclose(*shares, rtol=0.01, atol=1e-6) and np.allclose(*losses, rtol=0.05, atol=0.1)


def _leave_one_out(own: pd.DataFrame, measure: str) -> tuple[Array, Array, Array] | None:
    """l0 and value without each document, and the weights of the documents; None where there are no sums by document."""
    weighted = "variance" if measure == "fvu" else "scored"
    needed = ("error",) if measure == "fvu" else ("nats_sae", "nats_clean")
    if not {"tokens", "active", weighted, *needed} <= set(own):
        return None
    tokens, active, weights, *parts = (own[key].to_numpy(float) for key in ("tokens", "active", weighted, *needed))
    lost = parts[0] if measure == "fvu" else parts[0] - parts[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # a single document leaves nothing
        return _sums_without(active) / _sums_without(tokens), _sums_without(lost) / _sums_without(weights), weights


def _sums_without(parts: Float[Array, " documents"]) -> Float[Array, " documents"]:
    return parts.sum() - parts
