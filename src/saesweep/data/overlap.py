"""Which documents share passages with others: a passage is 200 characters that follow each other.

Of a document's passages those count whose hash falls into a 32nd part of all hashes, and the one with the smallest hash:
the same ones in every document. A hash is a polynomial of the characters modulo 2^64, of all passages in a few passes.
"""
from collections.abc import Iterable
from functools import cache

import numpy as np
from jaxtyping import UInt32, UInt64

PASSAGE = 200  # characters
SAMPLED = 5  # bits of a hash that are 0
MOST = 0.05  # share of a document's passages that may also stand in held-out text
RULE = f"passages of {PASSAGE}, one in {1 << SAMPLED}, at most {MOST}"  # part of the identity of a text
CHUNK = 1 << 18  # characters that are hashed at once
BASE, MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd
Hashes = UInt64[np.ndarray, " passages"]


class Passages:
    """Of some documents; there is none in this set if there are no documents."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *map(passages, documents)]))

    def overlap(self, document: str) -> bool:
        """Whether more than MOST of the document's passages are among these."""
        own = passages(document)
        if not len(own) or not len(self._hashes):
            return False
        at = np.searchsorted(self._hashes, own).clip(max=len(self._hashes) - 1)
        return bool((self._hashes[at] == own).mean() > MOST)


def passages(document: str) -> Hashes:
    """The sampled ones, each once and sorted; a document of fewer than 200 characters has none."""
    characters = np.frombuffer(document.encode("utf-32-le", "surrogatepass"), "<u4")
    last = len(characters) - PASSAGE + 1
    if last <= 0:
        return np.empty(0, np.uint64)
    parts = [_hashes(characters[start : start + CHUNK + PASSAGE - 1]) for start in range(0, last, CHUNK)]
    smallest = min(part.min() for part in parts)
    sampled = [part[part >> np.uint64(64 - SAMPLED) == 0] for part in parts]
    return np.unique(np.concatenate([*sampled, [smallest]]))


def _hashes(characters: UInt32[np.ndarray, " characters"]) -> Hashes:
    """Of the passage that begins at each character: sum over i of character[i] * BASE^i, scrambled."""
    powers, inverses = _powers()
    sums = np.zeros(len(characters) + 1, np.uint64)
    np.cumsum(characters * powers[: len(characters)], out=sums[1:])
    count = len(characters) - PASSAGE + 1
    hashes = (sums[PASSAGE:] - sums[:-PASSAGE]) * inverses[:count] * np.uint64(MIX)
    hashes ^= hashes >> np.uint64(32)
    return hashes * np.uint64(MIX)


@cache
def _powers() -> tuple[UInt64[np.ndarray, " powers"], UInt64[np.ndarray, " powers"]]:
    """BASE^i and BASE^-i modulo 2^64."""
    def of(base: int) -> UInt64[np.ndarray, " powers"]:
        powers = np.full(CHUNK + PASSAGE, base, np.uint64)
        powers[0] = 1
        return np.cumprod(powers)

    return of(BASE), of(pow(BASE, -1, 1 << 64))
