"""Which examples of a latent are shown, and what is to be known beside them."""
from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from saesweep.config.settings import has_lm
from saesweep.errors import UsageError, as_typed
from saesweep.study.examples import ASKED, PARTS, Group, choose, common_tokens
from saesweep.study.hits import SAMPLE, TOP
from saesweep.study.notebook.studied import Studied
from saesweep.study.notebook.views import Example, Examples
from saesweep.study.pieces import around

NEEDS_ALL = ("random", "same_token")  # groups of windows in which the latent is silent


def examples(of: Studied, latent: SupportsIndex, group: str, n: int) -> Examples:
    """Those of the test half, on which nothing was chosen. Raises UsageError for what cannot be asked."""
    number = of.latent(latent)
    if group not in ASKED:
        raise UsageError(f"group={as_typed(group)}: must be one of {', '.join(ASKED)}")
    if n < 1:
        raise UsageError(f"n={n}: must be at least 1")
    if not has_lm(of.sae.config):
        raise UsageError(f"{of.sae.folder}: this SAE reads draws of a known dictionary, which have no text; its latents are in "
                         "study/scores.csv of its sweep")
    parts = PARTS.get(group, 1)
    asked, half, common = -(-n // parts) * parts, of.sae.test, common_tokens(of.sae.fit, number)
    chosen = choose(of.places, half, number, common, {group: asked})[group]
    order = np.argsort(-chosen.part, kind="stable").tolist()
    pointed = common if group == "same_token" else common[:0]
    found = [_example(of, number, int(chosen.positions[i]), int(chosen.part[i]), pointed) for i in order]
    largest = max(float(half.top.values[number, 0]), 1e-30) * of.scale
    return Examples(f"Latent {number} of {of.title}", group, _notes(of, number, group, chosen), largest, found)


def _example(of: Studied, latent: int, position: int, part: int, pointed: np.ndarray) -> Example:
    half, text = of.sae.test, of.sae.test.text
    ids, values, at = around(half, latent, position)
    numbers, units = ids.tolist(), (of.scale * values.astype(np.float64)).tolist()
    return Example(position, int(text.document[position]), int(text.index[position]), part,
                   [of.pieces.verbatim(one) for one in numbers], [of.pieces[one] for one in numbers], units, at,
                   np.isin(ids, pointed).tolist())


def _notes(of: Studied, latent: int, group: str, chosen: Group) -> list[str]:
    half, count = of.sae.test, len(chosen.positions)
    if not half.fires[latent] and not count:
        return [of.activity(latent)]
    known, needs_all = latent in half.hits.latents, group in NEEDS_ALL
    if needs_all and not known:
        return [f"Of this latent the study does not know where it is silent: it keeps the {TOP} strongest activations and a "
                f"sample of {SAMPLE}."]
    found = [] if known or needs_all else [
        f"Of this latent the study keeps the {TOP} strongest activations, a sample of {SAMPLE}, and those on "
        f"{len(half.dense):,} tokens of all documents: it may be active on further tokens of what is shown."]
    few = f"{count} of {chosen.asked} asked for: there are no more in windows of their own."
    return [*found, few] if count < chosen.asked else found
