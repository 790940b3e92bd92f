"""People rate latents: does what a latent is active on have one meaning?

    saesweep rate outputs/NAME --raters r1,r2

serves a page for each rater on this machine until Ctrl-C, and keeps every answer as it is given; --static writes one offline
page per rater instead, whose answers come back as files.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saesweep.errors import exit_on_usage_error
from saesweep.lm.models import load_tokenizer
from saesweep.runtime import program
from saesweep.study import subjects
from saesweep.study.collect import collected
from saesweep.study.examples import Places, choose, common_tokens
from saesweep.study.hits import Collected
from saesweep.study.people.draw import Source
from saesweep.study.people.origin import Origin, origin
from saesweep.study.people.plan import plan
from saesweep.study.people.prepare import Rateable, prepare, rateable, write_pages
from saesweep.study.people.server import RatingServer
from saesweep.study.people.settings import RateSettings, settings
from saesweep.study.pieces import Pieces
from saesweep.study.sampling import eligible
from saesweep.study.written import settings_of

LIMITS = ("min_fires", "min_documents")  # on which latents are eligible


def main(words: Sequence[str] | None = None) -> None:
    given = arguments(words)
    with exit_on_usage_error():
        run(given.sweep, of_sweep(given.sweep, settings()), given.raters, settings(), given.static, given.port)


def of_sweep(sweep: Path, rate: RateSettings) -> Rateable:
    """What a sweep that was collected has for people to rate."""
    everything, study = collected(sweep), settings_of(sweep)
    limits = {key: study[key] for key in LIMITS}
    asked = {"top": rate.top, "decile": rate.spread}
    places = {id(one.fit.text): Places(one.fit.text) for one in everything}
    models = {one.config["model"]["name"]: one.config["model"] for one in everything}
    texts = {name: Pieces(load_tokenizer(model)) for name, model in models.items()}

    def latents(one: Collected) -> list[int]:
        allowed = eligible(one, **limits)
        kept = np.isin(one.order, one.fit.hits.latents)
        return one.order[allowed[one.order] & kept].tolist()

    def examples(one: Collected, latent: int) -> Mapping[str, Sequence[int]]:
        found = choose(places[id(one.fit.text)], one.fit, latent, common_tokens(one.fit, latent), asked)
        return {name: group.positions.tolist() for name, group in found.items()}

    found = rateable(everything, latents, lambda one: texts[one.config["model"]["name"]], examples)
    return replace(found, origins=_origins(sweep, found, study), limits=limits)


def _origins(sweep: Path, found: Rateable, study: Mapping[str, Any]) -> list[Origin]:
    there = subjects.of_sweep(sweep, study["controls"], study["seed"])
    files = {Source(one.path, one.control): one.file for one in there}
    return [origin(sweep.resolve(), source, files[source]) for source in found.collected]


def run(
    sweep: Path, found: Rateable, raters: Sequence[str], settings: RateSettings, static: bool = False, port: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Say what the session can show, then write the pages, or serve them until Ctrl-C."""
    session, pages = prepare(sweep / "study", found, raters, settings)
    for sentence in plan(found.candidates, found.archs, len(session.raters), settings):
        say(sentence)
    if static:
        for file in write_pages(session, pages):
            say(f"{file}: send it to the rater; put the file of answers that comes back into {session.answers}")
        return
    server = RatingServer(session, pages, port)
    for rater, url in server.urls().items():
        say(f"{rater}: {url}")
    say(f"Ctrl-C ends; answers are in {session.answers}, and the same command goes on with them")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("")
    finally:
        server.server_close()


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """sweep, raters, static and port as typed."""
    parser = argparse.ArgumentParser(prog=program.called("rate"), description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep with a finished study")
    parser.add_argument("--raters", required=True, type=lambda text: text.split(","), help="their names, with commas between")
    parser.add_argument("--static", action="store_true", help="write one offline page per rater, and serve nothing")
    parser.add_argument("--port", type=int, default=0, help="of the server; any that is free by default")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
