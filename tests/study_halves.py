"""Halves made by hand: text of given documents, and the activations of an SAE from a dense matrix."""
from pathlib import Path

import numpy as np

from saesweep.lm.tokenizer import Tokenizer, byte_tokenizer
from saesweep.study.comparison.replicates import draw
from saesweep.study.hits import BINS, SAMPLE, TOP, Collected, Examples, Half, Hits, TextHalf
from saesweep.study.keys import keys
from saesweep.study.labels import Labels
from saesweep.study.scores.conditions import conditions
from saesweep.study.table import Rows, score_one

BYTES = byte_tokenizer(False, None)


def words_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """A token per word, with the blank before it, for documents whose words are joined by one blank each."""
    numbers = {word: number for number, word in enumerate(vocabulary)}

    def offsets(text: str) -> list[tuple[int, int]]:
        spans, at = [], 0
        for number, word in enumerate(text.split(" ")):
            start, at = (at if not number else at - 1), at + len(word)
            spans.append((start, at))
            at += 1
        return spans

    def encode(texts: list[str]) -> list[list[int]]:
        return [[numbers[word] for word in text.split(" ")] for text in texts]

    def decode(ids: list[int]) -> str:
        return " ".join(vocabulary[number] for number in ids)

    return Tokenizer(encode, None, frozenset(), len(vocabulary), decode, None, offsets)


def text_half(documents: list[str], tokenizer: Tokenizer = BYTES, context: int = 64, pool: int = 200) -> TextHalf:
    """As the collector reads it: a document in blocks of `context` tokens, each with BOS if there is one."""
    columns: dict[str, list] = {"tokens": [], "document": [], "index": [], "block": []}
    size, block = context - (tokenizer.bos is not None), 0
    for number, ids in enumerate(tokenizer.encode(documents)):
        for start in range(0, len(ids), size):
            piece = list(enumerate(ids))[start : start + size]
            if tokenizer.bos is not None:
                piece = [(-1, tokenizer.bos), *piece]
            columns["tokens"] += [token for _, token in piece]
            columns["index"] += [index for index, _ in piece]
            columns["document"] += [number] * len(piece)
            columns["block"] += [block] * len(piece)
            block += 1
    arrays = {name: np.array(values, np.int32) for name, values in columns.items()}
    ordinary = ~np.isin(arrays["tokens"], list(tokenizer.special))
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(ordinary))[:pool]
    return TextHalf(documents, **arrays, ordinary=ordinary, pool=drawn.astype(np.int64))


def half(text: TextHalf, a: np.ndarray, kept: np.ndarray | None = None, dense: int | None = None, seed: int = 0) -> Half:
    """a: activations [tokens, d_sae]. kept: latents whose hits are kept on the whole half; dense: tokens with all latents'."""
    a = np.where(text.ordinary[:, None], a, 0).astype(np.float32)
    d_sae = a.shape[1]
    kept = np.arange(d_sae) if kept is None else np.sort(kept)
    dense = len(a) if dense is None else dense
    documents = np.array([len(np.unique(text.document[a[:, latent] > 0])) for latent in range(d_sae)], np.int64)
    return Half(
        text, np.zeros(0, np.int64), (a > 0).sum(0).astype(np.int64), documents, _histogram(a),
        _examples(a, TOP, lambda latent, at: np.lexsort((at, -a[at, latent]))),
        _examples(a, SAMPLE, lambda latent, at: np.argsort(keys(seed, np.array([latent]), at))),
        hits(a, kept), hits(a[:dense], np.arange(d_sae)), np.arange(dense),
    )


def hits(a: np.ndarray, latents: np.ndarray) -> Hits:
    columns, positions = np.nonzero(a[:, latents].T)
    starts = np.searchsorted(columns, np.arange(len(latents) + 1))
    return Hits(latents.astype(np.int64), starts.astype(np.int64), positions.astype(np.int64),
                a[positions, latents[columns]].astype(np.float32))


def _examples(a: np.ndarray, count: int, order) -> Examples:
    values, positions = np.zeros((a.shape[1], count), np.float32), np.full((a.shape[1], count), -1, np.int64)
    for latent in range(a.shape[1]):
        at = np.flatnonzero(a[:, latent])
        at = at[order(latent, at)[:count]]
        values[latent, : len(at)], positions[latent, : len(at)] = a[at, latent], at
    return Examples(values, positions)


def _histogram(a: np.ndarray) -> np.ndarray:
    found = np.zeros((a.shape[1], BINS), np.uint32)
    tokens, latents = np.nonzero(a)
    bins = np.clip(np.floor(4 * np.log2(a[tokens, latents])) + 64, 0, BINS - 1).astype(int)
    np.add.at(found, (latents, bins), 1)
    return found


def collected(
    fit: TextHalf, test: TextHalf, a_fit: np.ndarray, a_test: np.ndarray, *, path: str = "made/topk/16",
    control: str | None = None, **more,
) -> Collected:
    config = {"arch": {"name": path.split("/")[-2], "coefficient": None}, "sparsity": int(path.split("/")[-1]), "seed": 0}
    return Collected(path, Path("made"), config, {"l0": 16.0}, control, half(fit, a_fit, **more), half(test, a_test, **more))


def score(saes: list[Collected], labels: Labels, tokenizer: Tokenizer, *, draws: int, seed: int, extras=(), **asked) -> Rows:
    """The rows of SAEs and controls on one text. draws: of test documents. asked: features, min_fires, min_documents."""
    rows, both = Rows(), [conditions(one.fit.text, one.test.text, labels) for one in saes[:1]]
    for sae in saes:
        counts = draw(len(sae.test.text.documents), draws, seed)
        rows.extend(score_one(sae, *both, counts, tokenizer, **asked, extras=extras))
    return rows
