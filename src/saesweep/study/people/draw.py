"""Which latents a rater gets, and under which names.

Each SAE has its eligible latents in the order in which they are sampled. The first `common * features` are for all raters;
rater number r gets those from common + r * own on. Latents of the control are dealt to the raters in turn. Nothing that a
rater gets depends on how many raters follow. The order is that of key(seed, rater, item), and the first items come again in
the second half, under other names.

    name of an item = first 12 digits of HMAC-SHA256(secret, path|latent), which says nothing without the secret
"""
from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from saesweep.study.keys import keys
from saesweep.study.people.settings import RateSettings


class Source(NamedTuple):
    """An SAE, or the control that is like it."""

    path: str
    control: str | None = None

    @property
    def label(self) -> str:
        return f"{self.control} control of {self.path}" if self.control else self.path


class Item(NamedTuple):
    """A latent that one rater gets."""

    source: Source
    latent: int
    common: bool = False  # all raters get it
    repeated: bool = False  # this rater has had it before


Candidates = Mapping[Source, Sequence[int]]  # eligible latents of each, in the order in which they are sampled


def draw(candidates: Candidates, rater: int, settings: RateSettings) -> list[Item]:
    """The items of one rater, in the order in which they are shown. rater: a number from 0 on."""
    trained = [source for source in candidates if source.control is None]
    items = [item for source in sorted(trained) for item in _of_sae(source, candidates[source], rater, settings)]
    return _ordered(items + _of_control(candidates, rater, len(trained), settings), rater, settings)


def shared(settings: RateSettings) -> int:
    """Latents of each SAE that all raters get."""
    return _rounded(settings.common * settings.features)


def _of_sae(source: Source, latents: Sequence[int], rater: int, settings: RateSettings) -> list[Item]:
    common = shared(settings)
    own = settings.features - common
    first = common + rater * own
    return [Item(source, int(latent), True) for latent in latents[:common]] + [
        Item(source, int(latent)) for latent in latents[first : first + own]]


def _of_control(candidates: Candidates, rater: int, saes: int, settings: RateSettings) -> list[Item]:
    """In turn from the controls of all SAEs, no latent to two raters."""
    sources = sorted(source for source in candidates if source.control is not None)
    count = _rounded(saes * settings.features * settings.control / (1 - settings.control))
    numbers = range(rater * count, (rater + 1) * count) if sources else ()
    places = [(sources[number % len(sources)], number // len(sources)) for number in numbers]
    return [Item(source, int(candidates[source][n])) for source, n in places if n < len(candidates[source])]


def _ordered(items: Sequence[Item], rater: int, settings: RateSettings) -> list[Item]:
    """By key, with the first ones once more among the second half."""
    again = _rounded(settings.repeated * len(items))
    key = keys(settings.seed, np.array([rater]), np.arange(len(items) + again))
    shuffled = [items[n] for n in np.argsort(key[: len(items)], kind="stable")]
    middle = max(len(items) // 2, again)
    late = shuffled[middle:] + [item._replace(repeated=True) for item in shuffled[:again]]
    return shuffled[:middle] + [late[n] for n in np.argsort(key[middle:], kind="stable")]


def _rounded(number: float) -> int:
    """Halves upwards."""
    return int(number + 0.5)


def blind(secret: bytes, item: Item) -> str:
    """The name under which an item is shown."""
    path = f"control/{item.source.control}/{item.source.path}" if item.source.control else item.source.path
    message = f"{path}|{item.latent}{'|repeated' if item.repeated else ''}"
    return hmac.new(secret, message.encode(), hashlib.sha256).hexdigest()[:12]


def order_seed(secret: bytes, seed: int) -> int:
    """The seed of the order of the items. Without the secret, an item's place says nothing of its SAE."""
    return int.from_bytes(hmac.new(secret, f"order|{seed}".encode(), hashlib.sha256).digest()[:8]) >> 1


def study_id(secret: bytes) -> str:
    """The name of the study, which tells its ratings from another's."""
    return hmac.new(secret, b"study", hashlib.sha256).hexdigest()[:12]
