"""Documents that share passages with others: a passage is 200 consecutive characters.

Passages are sampled by hash, so that the same ones are drawn in every document: those whose hash begins with 5 zero bits,
and the one with the smallest hash. The hash is a rolling polynomial modulo 2^64.
"""
from collections.abc import Iterable
from functools import cache

import numpy as np
from jaxtyping import UInt32, UInt64

PASSAGE = 200  # characters
SAMPLED = 5  # leading zero bits of the hash of a sampled passage
MAX_SHARED = 0.05  # share of a document's passages that may also occur in held-out text
RULE = f"passages of {PASSAGE}, one in {1 << SAMPLED}, at most {MAX_SHARED}"  # part of the identity of a text
CHUNK = 1 << 18  # characters hashed at once
BASE, MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd
Hashes = UInt64[np.ndarray, " passages"]


class Passages:
    """The sampled passages of some documents."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *map(passages, documents)]))

    def overlap(self, document: str) -> bool:
        """Whether more than MAX_SHARED of the document's sampled passages are among these."""
        own = passages(document)
        if not len(own) or not len(self._hashes):
            return False
        at = np.searchsorted(self._hashes, own).clip(max=len(self._hashes) - 1)
        return bool((self._hashes[at] == own).mean() > MAX_SHARED)


def passages(document: str) -> Hashes:
    """Hashes of the sampled passages, unique and sorted; none for a document of fewer than 200 characters."""
    characters = np.frombuffer(document.encode("utf-32-le", "surrogatepass"), "<u4")
    last = len(characters) - PASSAGE + 1
    if last <= 0:
        return np.empty(0, np.uint64)
    parts = [_hashes(characters[start : start + CHUNK + PASSAGE - 1]) for start in range(0, last, CHUNK)]
    smallest = min(part.min() for part in parts)
    sampled = [part[part >> np.uint64(64 - SAMPLED) == 0] for part in parts]
    return np.unique(np.concatenate([*sampled, [smallest]]))


def _hashes(characters: UInt32[np.ndarray, " characters"]) -> Hashes:
    """Hash of the passage that begins at each character: sum over i of character[i] * BASE^i, with its bits mixed."""
    powers, inverses = _powers()
    sums = np.zeros(len(characters) + 1, np.uint64)
    np.cumsum(characters * powers[: len(characters)], out=sums[1:])
    count = len(characters) - PASSAGE + 1
    hashes = (sums[PASSAGE:] - sums[:-PASSAGE]) * inverses[:count] * np.uint64(MIX)
    hashes ^= hashes >> np.uint64(32)
    return hashes * np.uint64(MIX)


@cache
def _powers() -> tuple[UInt64[np.ndarray, " powers"], UInt64[np.ndarray, " powers"]]:
    """BASE^i and BASE^-i modulo 2^64, for i from 0."""
    def of(base: int) -> UInt64[np.ndarray, " powers"]:
        powers = np.full(CHUNK + PASSAGE, base, np.uint64)
        powers[0] = 1
        return np.cumprod(powers)

    return of(BASE), of(pow(BASE, -1, 1 << 64))
