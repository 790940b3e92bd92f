"""What a rating session asks of people, and what difference it can show: said before anybody rates."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from saesweep.study.people.draw import Candidates, Item, draw, shared
from saesweep.study.people.proportions import detectable, half_width
from saesweep.study.people.settings import RateSettings


def plan(candidates: Candidates, archs: Mapping[str, str], raters: int, settings: RateSettings) -> list[str]:
    """Sentences. archs: the architecture of each SAE by its path."""
    each = [draw(candidates, rater, settings) for rater in range(raters)]
    sizes = sorted({len(items) for items in each})
    who = "The rater" if raters == 1 else f"Each of {raters} raters"
    rated = {(item.source, item.latent) for items in each for item in items if item.source.control is None}
    counts = Counter(archs[source.path] for source, _ in rated)
    per_arch = ", ".join(f"{counts[arch]} of {arch}" for arch in sorted(counts))
    return [
        f"{who} gets {' to '.join(map(str, dict.fromkeys([sizes[0], sizes[-1]])))} items:",
        _composition(candidates, each[0], settings),
        f"Rated are {per_arch.replace(' of ', ' latents of ', 1)}.",
        *power(list(counts.values()), settings),
    ]


def _composition(candidates: Candidates, items: list[Item], settings: RateSettings) -> str:
    saes = sum(source.control is None for source in candidates)
    common, control = shared(settings), sum(item.source.control is not None and not item.repeated for item in items)
    again = sum(item.repeated for item in items)
    parts = [f"{settings.features} latents of each of {saes} SAEs, of which all raters get {common}"]
    parts += [f"{control} of the random control"] * bool(control) + [f"{again} of these a second time"] * bool(again)
    return "; ".join(parts) + "."


def power(latents: Sequence[int], settings: RateSettings) -> list[str]:
    """Which difference so many ratings can show. latents: those rated of each architecture."""
    if len(latents) < 2 or min(latents) == 0:
        return []
    least, near = min(latents), settings.expected
    reach, found = 100 * half_width(least, near), 100 * detectable(least, near, settings.power)
    return [f"With {least} latents a side and shares of yes near {100 * near:.0f}%, the 95% interval of a difference between "
            f"two shares reaches about {reach:.0f} points to either side, and a true difference of {found:.0f} points is found "
            f"by {10 * settings.power:.3g} studies in 10."]
