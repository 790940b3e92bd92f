"""Which rows of activations of one's own are held out: a share of the documents, drawn by a hash of their numbers.

A document is on one side whole, wherever its rows are and in whatever order they come, so that rows which can be read once
only, in their own order, need no list of documents. Evaluation and calibration have half of the held-out documents each.
"""
import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int8, Int64, UInt64
from torch import Tensor

from saesweep.data.held_out import CALIBRATION, EVALUATION
from saesweep.errors import UsageError

TRAINING = 2  # beside the two purposes
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
Rows = tuple[Float[Tensor, "rows d_in"], Int[Tensor, " rows"]]  # raw activations, and the document of each row, from 0


def sides(documents: Int64[np.ndarray, " n"], share: float, stream_seed: int) -> Int8[np.ndarray, " n"]:
    """TRAINING, EVALUATION or CALIBRATION for each number of a document; about the share is held out."""
    drawn = _drawn(documents, stream_seed)
    held_out = np.where(drawn < share / 2, EVALUATION, CALIBRATION)
    return np.where(drawn < share, held_out, TRAINING).astype(np.int8)


def sides_of_all(documents: Int64[np.ndarray, " n"], share: float, stream_seed: int) -> Int8[np.ndarray, " n"]:
    """The same where all documents are there: the nearest number to the share, of those whose hash is smallest."""
    every, which = np.unique(documents, return_inverse=True)
    rank = _drawn(every, stream_seed).argsort(kind="stable").argsort(kind="stable")
    held_out = np.where(rank % 2 == 0, EVALUATION, CALIBRATION)
    return np.where(rank < round(share * len(every)), held_out, TRAINING).astype(np.int8)[which]


def _drawn(documents: Int64[np.ndarray, " n"], stream_seed: int) -> Float64[np.ndarray, " n"]:
    """A number from 0 to 1 for each."""
    seed = _mixed(np.array([stream_seed + 1], np.uint64) * GOLDEN)
    return (_mixed(documents.astype(np.uint64) * GOLDEN + seed) >> np.uint64(11)) / 2**53


def _mixed(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def numbered(x: Float[Tensor, "rows d_in"], documents: Int64[np.ndarray, " rows"]) -> Rows:
    """The rows, with their documents numbered from 0."""
    return x, torch.from_numpy(np.unique(documents, return_inverse=True)[1].astype(np.int64))


def require_held_out(purpose: int, wanted: int, found: int) -> None:
    """Raises UsageError where a purpose has fewer held-out rows than are asked for."""
    if found < wanted:
        key = ("evaluation.tokens", "evaluation.calibration_tokens")[purpose]
        fix = f"write {key}={found}, or " if found else ""
        raise UsageError(f"{key}={wanted}: there are {found:,} held-out rows for it; {fix}hold out more with "
                         "model.source.activations.held_out")
