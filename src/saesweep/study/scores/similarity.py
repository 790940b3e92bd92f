"""Whether the contexts of a latent's examples are alike, by embeddings of their text.

    context     the activation-weighted mean cosine of two examples (MS, 2504.02821),
                ((sum a e)^2 - sum a^2) / ((sum a)^2 - sum a^2)
    intruder    of ACTIVE examples and one in which the latent is silent, how often the silent one has the least summed cosine
                with the others, over DRAWS draws; chance is 1 / (ACTIVE + 1) (2507.08473)

e are unit vectors. Examples are of test: of the deciles, and silent windows. Embedded are AROUND characters either side of the
token. Embeddings see words and topics, hardly syntax.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.comparison.missing import EMBEDDED
from saesweep.study.examples import Places, choose, common_tokens
from saesweep.study.hits import Collected, TextHalf
from saesweep.study.scores.of_sae import Extra

ACTIVE, DRAWS, AROUND = 4, 50, 40
ASKED = {"decile": 50, "random": 25}

Embed = Callable[[Sequence[str]], Float[np.ndarray, "texts d"]]


def context(e: Float[np.ndarray, "n d"], a: Float[np.ndarray, " n"]) -> float:
    """NaN of fewer than two examples."""
    if len(e) < 2:
        return float("nan")
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    squares = float(np.square(a).sum())
    return (float(np.square(a @ e).sum()) - squares) / (float(a.sum()) ** 2 - squares)


def intruder(active: Float[np.ndarray, "n d"], silent: Float[np.ndarray, "m d"], seed: int) -> float:
    """NaN where there are too few examples. A tie of the silent one with others is shared."""
    if len(active) < ACTIVE or not len(silent):
        return float("nan")
    draw, found = np.random.default_rng(seed), []
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (active, silent)]
    for _ in range(DRAWS):
        chosen = draw.choice(len(active), ACTIVE, replace=False), draw.integers(len(silent), size=1)
        e = np.concatenate([unit[0][chosen[0]], unit[1][chosen[1]]])
        summed = (e @ e.T).sum(1)
        least = np.isclose(summed, summed.min(), rtol=0, atol=1e-9)
        found.append(least[-1] / least.sum())
    return float(np.mean(found))


class Around:
    """The text around positions of a half."""

    def __init__(self, text: TextHalf, tokenizer: Tokenizer):
        self.text, self.tokenizer, self.known = text, tokenizer, dict[int, list[tuple[int, int]]]()

    def __call__(self, position: int) -> str:
        number = int(self.text.document[position])
        document = self.text.documents[number]
        if number not in self.known:
            assert self.tokenizer.offsets is not None, "every tokenizer of lm/tokenizer.py has them"
            self.known[number] = self.tokenizer.offsets(document)
        start, end = self.known[number][int(self.text.index[position])]
        return document[max(start - AROUND, 0) : end + AROUND]


class SimilarityScores(Extra):
    """Of at most `most` latents of each SAE, the first of its sample: embedding takes long."""

    of_some = frozenset(EMBEDDED)

    def __init__(self, embed: Embed, tokenizer: Tokenizer, most: int, seed: int):
        self.embed, self.tokenizer, self.most, self.seed = embed, tokenizer, most, seed
        self.kept: tuple[TextHalf, Places, Around] | None = None  # of the text that was asked for last

    def of_latents(self, sae: Collected, latents: Int64[np.ndarray, " n"]) -> Mapping[str, Float[np.ndarray, " n"]]:
        rank = np.empty(sae.d_sae, np.int64)
        rank[sae.order] = np.arange(sae.d_sae)
        first = set(latents[np.argsort(rank[latents])[: self.most]].tolist())
        pairs = [self._of(sae, latent) if latent in first else (np.nan, np.nan) for latent in latents.tolist()]
        columns = np.array(pairs, np.float64).reshape(-1, 2).T
        return {"context": columns[0], "intruder": columns[1]}

    def _of(self, sae: Collected, latent: int) -> tuple[float, float]:
        places, around = self._text(sae.test.text)
        groups = choose(places, sae.test, latent, common_tokens(sae.fit, latent), ASKED)
        positions = [groups[name].positions for name in ASKED]
        if groups["decile"].insufficient or not len(positions[1]):
            return np.nan, np.nan
        active, silent = (self.embed([around(position) for position in one.tolist()]) for one in positions)
        sample = sae.test.sample
        at = {int(p): float(v) for p, v in zip(sample.positions[latent], sample.values[latent], strict=True)}
        values = np.array([at[position] for position in positions[0].tolist()])
        return context(active.astype(np.float64), values), intruder(active, silent, self.seed)

    def _text(self, text: TextHalf) -> tuple[Places, Around]:
        if self.kept is None or self.kept[0] is not text:
            self.kept = text, Places(text), Around(text, self.tokenizer)
        return self.kept[1:]
