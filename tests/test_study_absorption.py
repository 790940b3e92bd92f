"""Absorption on a known dictionary whose features have parents: a latent that is silent where a child takes its place."""
from pathlib import Path

import numpy as np
import pytest
from study_halves import BYTES, half, score, text_half

from saesweep.data.synthetic import SyntheticSource
from saesweep.lm.hooks import HookPoint
from saesweep.runtime.rng import generator
from saesweep.study.hits import Collected
from saesweep.study.known_dictionary import KnownDictionary, feature_labels
from saesweep.study.scores.absorption import RowScores

FEATURES, CHILDREN, TOKENS = 12, 3, 4096
SOURCE = SyntheticSource(HookPoint("synthetic", "output"), features=FEATURES, d_in=32, l0=3.0, spread=40.0, noise=0.02, seed=0,
                         window=64, stream_seed=0, parents=CHILDREN / FEATURES)
D = SOURCE.dictionary.numpy().astype(np.float64)


@pytest.fixture(scope="module")
def scores():
    """By name of the SAE its scores. `exact` has a latent per feature; in `absorbing` the latents of children also stand for
    their parents, whose own latents are silent there."""
    text = text_half(["a" * 64] * (TOKENS // 64))
    x, truth = {}, {}
    for seed, name in enumerate(("fit", "test")):
        rows, a = SOURCE.draw_with_features(TOKENS, generator(seed))
        x[name], truth[name] = rows.numpy().astype(np.float64), a.numpy()
    decoders = {"exact": D, "absorbing": D.copy()}
    both = D[-CHILDREN:] + D[:CHILDREN]
    decoders["absorbing"][-CHILDREN:] = both / np.linalg.norm(both, axis=1)[:, None]
    saes = []
    for name in decoders:
        latents = {key: a.copy() for key, a in truth.items()}
        for a in latents.values():
            if name == "absorbing":
                a[:, -CHILDREN:] *= 2**0.5
                a[:, :CHILDREN] *= a[:, -CHILDREN:] == 0
        config = {"arch": {"name": name, "coefficient": None}, "sparsity": 3, "seed": 0}
        halves = [half(text, latents[key]) for key in ("fit", "test")]
        saes.append(Collected(f"{name}/3", Path(name), config, {}, None, *halves))
    extras = [RowScores(lambda sae, which: x[which], lambda sae: decoders[sae.folder.name]), KnownDictionary(truth)]
    options = {"features": 50, "min_fires": 50, "min_documents": 10, "draws": 5, "seed": 0}
    frame = score(saes, feature_labels(truth), BYTES, **options, extras=extras).frames()[1]
    return {name: frame[frame["arch"] == name].set_index("score")["uniform"] for name in decoders}


def test_a_dictionary_with_a_latent_per_feature_absorbs_nothing(scores):
    exact = scores["exact"]
    assert exact["absorption"] == 0 and exact["splits"] == 1 and exact["probe_x"] > 0.9
    assert [exact["coverage"], exact["probe_1"], exact["known_f1"]] == pytest.approx([1, 1, 1], abs=1e-3)


def test_absorption_is_the_share_of_parents_that_a_child_stands_for(scores):
    absorbing = scores["absorbing"]
    p = SOURCE.probability
    share = float((p[-CHILDREN:] / p[:CHILDREN]).mean())  # of a parent's tokens, those with its child
    assert absorbing["absorption"] == pytest.approx(share * CHILDREN / FEATURES, abs=0.003)
    assert absorbing["splits"] == 1 and absorbing["coverage"] < scores["exact"]["coverage"]
