"""From collected SAEs to the pages of their raters."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.runtime import atomic
from saesweep.study.hits import Collected
from saesweep.study.people import page
from saesweep.study.people.draw import Candidates, Item, Source, draw, order_seed
from saesweep.study.people.origin import Origin, begin_anew
from saesweep.study.people.payload import Chooser, payload
from saesweep.study.people.session import Session, open_session, read_key, write_key
from saesweep.study.people.settings import RateSettings
from saesweep.study.pieces import Pieces

CONTROL = "random"  # the control that people rate


@dataclass(frozen=True)
class Rateable:
    """What a study has for people to rate."""

    collected: Mapping[Source, Collected]  # each SAE and control
    candidates: Candidates  # eligible latents of each
    texts: Mapping[str, Pieces]  # the text of tokens, by the path of the SAE
    choose: Chooser  # the examples of a latent
    origins: Sequence[Origin] = ()  # of each SAE and control
    limits: Mapping[str, int] = field(default_factory=dict)  # on which latents are eligible

    @property
    def archs(self) -> dict[str, str]:
        """The curve of each SAE by its path."""
        return {source.path: one.curve for source, one in self.collected.items() if source.control is None}


def rateable(
    collected: Sequence[Collected], latents: Callable[[Collected], Sequence[int]], texts: Callable[[Collected], Pieces],
    choose: Chooser,
) -> Rateable:
    """The SAEs and their random controls; other controls are for scores alone.

    latents: the eligible latents of an SAE, in the order in which they are sampled. texts: the text of its tokens.
    """
    found = {Source(one.path, one.control): one for one in collected if one.control in (None, CONTROL)}
    candidates = {source: list(latents(one)) for source, one in found.items()}
    return Rateable(found, candidates, {source.path: texts(one) for source, one in found.items()}, choose)


def prepare(
    study: Path, found: Rateable, raters: Sequence[str], settings: RateSettings
) -> tuple[Session, dict[str, dict[str, Any]]]:
    """The session with key.csv written, and the content of the pages of these raters.

    study: the folder <sweep>/study. Raises UsageError where no latent is eligible.
    """
    if not any(latents for source, latents in found.candidates.items() if source.control is None):
        raise UsageError(f"{study}: no latent of any SAE is active often enough to be rated; collect more tokens")
    session = open_session(study, raters, settings, found.origins, found.limits)
    drawn = _drawn(session, found, settings)
    write_key(session, drawn, found.archs)
    pages = {rater: payload(session, rater, drawn[rater], found.collected, found.choose, found.texts, settings)
             for rater in dict.fromkeys(raters)}
    return session, pages


def _drawn(session: Session, found: Rateable, settings: RateSettings) -> dict[str, list[Item]]:
    """The items of each rater: those that they have, or new ones, of the SAEs that were there when the session began."""
    began = {one.source for one in session.origins} or set(found.candidates)
    candidates = {source: latents for source, latents in found.candidates.items() if source in began}
    ordered, has = replace(settings, seed=order_seed(session.secret, settings.seed)), dict[str, list[Item]]()
    for given in read_key(session):
        if given.item.source not in candidates:
            raise UsageError(f"{given.item.source.label} is not there any more, and {given.rater} has latents of it: put it "
                             f"back, or {begin_anew(session.folder)}")
        has.setdefault(given.rater, []).append(given.item)
    return {rater: has.get(rater) or draw(candidates, number, ordered) for number, rater in enumerate(session.raters)}


def write_pages(session: Session, pages: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """One offline page per rater, rate_<rater>.html."""
    files = {session.folder / f"rate_{rater}.html": page.html(content) for rater, content in pages.items()}
    for file, text in files.items():
        atomic.write(file, text)
    return list(files)
