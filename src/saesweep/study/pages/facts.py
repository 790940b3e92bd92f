"""What a latent's page says beside its examples: rule, explanation, scores, density, logits, neighbours."""
from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from saesweep.study.comparison import catalogue
from saesweep.study.hits import Collected
from saesweep.study.pages.groups import percent
from saesweep.study.pages.histogram import histogram, logit_histogram
from saesweep.study.pages.of_sae import Explanation
from saesweep.study.pages.template import link, row, table
from saesweep.study.pieces import Pieces
from saesweep.study.scores.logits import Logits

Means = Mapping[str, tuple[float, float]]  # by score: the mean of the SAE's latents, and that of the control
Row = Mapping[str, Any]  # of scores.csv
NO_RULE = "No rule of labels and tokens says when it fires."


def number(value: Any) -> str:
    """Three decimals, of a small number two digits; `-` for none."""
    if value is None or value != value:
        return "-"
    value = float(value)
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"


def rule(of: Row) -> str:
    words = of.get("rule_words")
    if not isinstance(words, str) or not words:
        return f'<p class="rule">{NO_RULE}</p>'
    names = {"rule": "r", "rule_f1": "F1", "rule_recall": "fires on {} of the tokens where the rule holds"}
    parts = []
    for key, name in names.items():
        if (found := of.get(key)) is not None and not math.isnan(found):
            parts.append(name.format(percent(found)) if "{}" in name else f"{name} {number(found)}")
    return f'<p class="rule">{escape(words)}</p><p>{"; ".join(parts)}.</p>'


def explanation(found: Explanation | None) -> str:
    return "" if found is None else f"<blockquote>{escape(found.text)}</blockquote><p>Written by {escape(found.model)}.</p>"


def scores(of: Row, names: list[str], means: Means) -> str:
    """Each score beside the mean of the SAE's latents, that of the control's, and the difference to it."""
    rows = []
    for name in names:
        own, control = means.get(name, (math.nan, math.nan))
        cells = map(number, (of[name], own, control, float(of[name]) - control))
        rows.append(row(escape(catalogue.score(name).words), cells))
    return table("Scores", ("score", "latent", "SAE's mean", "control's mean", "latent less that"), rows)


def density(sae: Collected, latent: int, of: Row) -> str:
    words = (f"Active on {percent(float(of['frequency']))} of the tokens of the test half: {int(of['fires']):,} tokens in "
             f"{int(of['documents']):,} of {len(sae.test.text.documents):,} documents.")
    return f"<p>{words}</p>{histogram(sae.test.histogram[latent])}"


def logits(pieces: Pieces, found: Logits, row: int) -> str:
    """row: of the latent."""
    words = _logit_words(pieces, found.highest[row], found.lowest[row])
    if found.histograms is None or not (drawn := logit_histogram(*(one[row] for one in found.histograms))):
        return words
    return f"{words}<h3>All {int(found.histograms.counts[row].sum()):,} words, less their mean</h3>{drawn}"


def _logit_words(pieces: Pieces, highest: np.ndarray, lowest: np.ndarray) -> str:
    items = ((title, "".join(f"<li><code>{escape(pieces[int(one)])}</code></li>" for one in words))
             for title, words in (("Raises", highest), ("Lowers", lowest)))
    lists = (f'<div><h3>{title}</h3><ol class="words">{words}</ol></div>' for title, words in items)
    return f'<div class="pair">{"".join(lists)}</div>'


def nearest(latents: np.ndarray, cosines: np.ndarray, pages: Mapping[int, str]) -> str:
    """pages: of the latents that have one."""
    items = (f"<li>{link(pages[one], str(one)) if one in pages else one} <small>{cosine:z.2f}</small></li>"
             for one, cosine in zip(latents.tolist(), cosines.tolist(), strict=True))
    return f'<ol class="nearest" aria-label="Nearest decoder rows, with their cosines">{"".join(items)}</ol>'
