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
    per_arch = _latents(each, archs)
    return [
        f"{who} gets {' to '.join(map(str, dict.fromkeys([sizes[0], sizes[-1]])))} items:",
        _composition(candidates, each[0], settings),
        f"Rated are {', '.join(f'{n}{word} of {arch}' for arch, n, word in per_arch)}.",
        *power([n for _, n, _ in per_arch], settings),
    ]


def _composition(candidates: Candidates, items: list[Item], settings: RateSettings) -> str:
    saes = sum(source.control is None for source in candidates)
    common, control = shared(settings), sum(item.source.control is not None and not item.repeated for item in items)
    again = sum(item.repeated for item in items)
    parts = [f"{settings.features} latents of each of {saes} SAEs, of which all raters get {common}"]
    parts += [f"{control} of the random control"] * bool(control) + [f"{again} of these a second time"] * bool(again)
    return "; ".join(parts) + "."


def _latents(each: list[list[Item]], archs: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """(architecture, its distinct latents, the word behind the first number)"""
    distinct = {(item.source, item.latent) for items in each for item in items if item.source.control is None}
    counts = Counter(archs[source.path] for source, _ in distinct)
    return [(arch, counts[arch], " latents" if n == 0 else "") for n, arch in enumerate(sorted(counts))]


def power(latents: Sequence[int], settings: RateSettings) -> list[str]:
    """Which difference so many ratings can show. latents: those rated of each architecture."""
    if len(latents) < 2 or min(latents) == 0:
        return []
    least, near = min(latents), settings.expected
    reach, found = 100 * half_width(least, near), 100 * detectable(least, near, settings.power)
    return [f"With {least} latents a side and shares of yes near {100 * near:.0f}%, the 95% interval of a difference between "
            f"two shares reaches about {reach:.0f} points to either side, and a true difference of {found:.0f} points is found "
            f"by {10 * settings.power:.3g} studies in 10."]
