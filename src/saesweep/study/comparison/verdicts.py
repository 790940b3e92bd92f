"""The verdict on a difference: an absence of evidence is not evidence of equality.

    better, worse   the interval excludes 0 (higher, lower: of a score that describes and does not judge)
    equal           the interval lies within ± delta
    open            neither: not told apart
    none            nothing was varied, so there is no interval

A difference can be better and within delta; `within` says so. `equal` and `within` need 3 / delta features behind each SAE:
where n features agree, a share of up to 3 / n of the latents may still differ wholly (rule of three).
"""
from __future__ import annotations

from typing import Any

from saesweep.study.comparison.contrasts import Contrast


def verdict(found: Contrast, better: int, delta: float) -> dict[str, Any]:
    """better: 1, -1 or 0 of the score (catalogue.py)."""
    ends = found.interval
    if ends is None:
        return {"verdict": "none", "within": False}
    sign = (ends.low > 0) - (ends.high < 0)
    within = bool(better) and max(-ends.low, ends.high) <= delta and _enough(found, delta)
    if sign:
        words = ("better", "worse") if better else ("higher", "lower")
        return {"verdict": words[0] if sign * (better or 1) > 0 else words[1], "within": within}
    return {"verdict": "equal" if within else "open", "within": within}


def _enough(found: Contrast, delta: float) -> bool:
    """Seeds that agree exactly are not enough alone."""
    assert found.interval is not None
    exact = found.interval.low == found.interval.high and not found.by_documents
    return found.effective * delta >= 3 and not exact
