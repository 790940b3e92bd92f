"""Documents that repeat others: an n-gram is SIZE consecutive tokens, and is compared by a hash of 64 bits."""
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int32, UInt64

from saesweep.study.keys import mix

SIZE = 13  # tokens; the contamination analysis of GPT-3 (arXiv:2005.14165, appendix C) compares 13 words
MOST = 0.5  # share of a test document's n-grams that may also occur in fit documents
NGrams = UInt64[np.ndarray, " _"]


def ngrams(tokens: Int32[np.ndarray, " tokens"]) -> NGrams:
    """The hashes of a document's n-grams, unique and sorted; none for a document of fewer than SIZE tokens."""
    count = len(tokens) - SIZE + 1
    hashes = np.zeros(max(count, 0), np.uint64)
    for i in range(SIZE if count > 0 else 0):
        hashes = mix(hashes + tokens[i : i + count].astype(np.uint64) + np.uint64(1))
    return np.unique(hashes)


def union(parts: Iterable[NGrams]) -> NGrams:
    """The n-grams of several documents, unique and sorted."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def repeats(own: NGrams, known: NGrams) -> bool:
    """Whether more than MOST of a document's n-grams are among the known ones."""
    if not len(own) or not len(known):
        return False
    at = np.searchsorted(known, own).clip(max=len(known) - 1)
    return bool((known[at] == own).mean() > MOST)
