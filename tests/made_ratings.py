"""A small study: words for a text, and SAEs whose latents fire on chosen words."""
import re
from pathlib import Path

import numpy as np

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.hits import BINS, SAMPLE, TOP, Collected, Examples, Half, Hits, TextHalf
from saesweep.study.people import prepare
from saesweep.study.people.prepare import Rateable
from saesweep.study.pieces import Pieces

VOCABULARY: list[str] = ["<bos>"]


def words_tokenizer() -> Tokenizer:
    """One token per word with the blank before it; the vocabulary grows with what is read."""
    def encode(texts):
        found = [re.findall(r" ?</?\w+>| ?\w+|\s|[^\w\s]", text) for text in texts]
        VOCABULARY.extend(dict.fromkeys(word for words in found for word in words if word not in VOCABULARY))
        return [[VOCABULARY.index(word) for word in words] for words in found]

    return Tokenizer(encode, None, frozenset({0}), 1000, lambda ids: "".join(VOCABULARY[n] for n in ids))


def text_of(documents: list[str]) -> TextHalf:
    """A block per document."""
    ids = words_tokenizer().encode(documents)
    number = np.concatenate([np.full(len(part), n, np.int32) for n, part in enumerate(ids)])
    index = np.concatenate([np.arange(len(part), dtype=np.int32) for part in ids])
    tokens = np.concatenate([np.array(part, np.int32) for part in ids])
    ordinary = np.ones(len(tokens), bool)
    return TextHalf(documents, tokens, number, index, number, ordinary, np.arange(len(tokens), dtype=np.int64))


def half_of(documents: list[str] | TextHalf, active: dict[int, dict[int, float]]) -> Half:
    """active: by latent the values by position."""
    text = documents if isinstance(documents, TextHalf) else text_of(documents)
    d_sae = max(active) + 1
    each = [sorted(active.get(latent, {}).items()) for latent in range(d_sae)]
    positions = np.array([position for one in each for position, _ in one], np.int64)
    values = np.array([value for one in each for _, value in one], np.float32)
    starts = np.cumsum([0, *map(len, each)]).astype(np.int64)
    hits = Hits(np.arange(d_sae), starts, positions, values)
    strongest = [sorted(one, key=lambda pair: -pair[1]) for one in each]
    spread = [[one[n] for n in np.random.default_rng(0).permutation(len(one))] for one in each]
    return Half(
        text, sinks=np.zeros(0, np.int64), fires=np.diff(starts), histogram=np.zeros((d_sae, BINS), np.uint32),
        documents=np.array([len({int(text.document[p]) for p, _ in one}) for one in each]),
        top=_examples(strongest, TOP), sample=_examples(spread, SAMPLE), hits=hits, dense_hits=hits,
        dense=np.arange(len(text.tokens)),
    )


def _examples(each: list[list[tuple[int, float]]], k: int) -> Examples:
    values, positions = np.zeros((len(each), k), np.float32), np.full((len(each), k), -1, np.int64)
    for latent, pairs in enumerate(each):
        for n, (position, value) in enumerate(pairs[:k]):
            values[latent, n], positions[latent, n] = value, position
    return Examples(values, positions)


def collected(path: str, arch: str, halves: tuple[Half, Half], control: str | None = None) -> Collected:
    config = {"arch": {"name": arch}, "sparsity": 32, "seed": 0}
    return Collected(path, Path(path), config, {"l0": 32.0, "fvu": 0.1}, control, *halves)


WORDS = ["self", "def", "return", "import", "</script>", "x"]  # the last SAE's latents fire on these
DOCUMENTS = [f"class A{n} : def f ( self ) : return self . x </script> import os {n} def g ( x ) :" for n in range(12)]


def _on_words(text: TextHalf, scale: float) -> Half:
    """Latent n is active on WORDS[n % 6]; its values grow along the text."""
    texts = [VOCABULARY[number].strip() for number in text.tokens.tolist()]
    active = {}
    for latent in range(30):
        word = WORDS[latent % 6]
        at = [n for n, found in enumerate(texts) if found == word]
        active[latent] = {position: scale * (rank + 1) for rank, position in enumerate(at)}
    return half_of(text, active)


def choose(of: Collected, latent: int) -> dict[str, list[int]]:
    """Top and decile, as the study chooses them."""
    kept = of.fit.sample
    known = int((kept.positions[latent] >= 0).sum())
    weakest_first = kept.positions[latent, :known][np.argsort(kept.values[latent, :known])]
    return {"top": [int(p) for p in of.fit.top.positions[latent] if p >= 0], "decile": weakest_first.tolist()}


def rateable() -> Rateable:
    """Two SAEs at one L0, with controls of each."""
    fit, test = text_of(DOCUMENTS[:6]), text_of(DOCUMENTS[6:])
    found = [collected(f"model=small/resid/3/{arch}/32", arch, (_on_words(fit, scale), _on_words(test, scale)), control)
             for arch, scale in (("jumprelu", 1.0), ("topk", 1000.0)) for control in (None, "random", "pca")]
    texts = Pieces(words_tokenizer())
    return prepare.rateable(found, lambda one: range(30), lambda one: texts, choose)
