"""A rating session whose study was made again: what is refused, what is said, and that no answer is lost."""
import json
from dataclasses import replace

import pytest
from made_ratings import rateable

from saesweep.errors import UsageError
from saesweep.storage import files
from saesweep.study import arrays
from saesweep.study.people.answers import append
from saesweep.study.people.draw import Source
from saesweep.study.people.files import report
from saesweep.study.people.origin import changes, known_origins, origin, set_aside
from saesweep.study.people.prepare import prepare
from saesweep.study.people.session import read_key
from saesweep.study.people.settings import settings

RATE = settings({"features": 5, "common": 0.4, "repeated": 0, "draws": 20})
TOPK, JUMPRELU = (Source(f"model=small/resid/3/{arch}/32") for arch in ("topk", "jumprelu"))
GONE = r"model=small/resid/3/topk/32 was trained again since"


def hits(sweep, source):
    return sweep / source.path / (source.control or "") / "study/hits.safetensors"


def collect(sweep, source, weights="a", text="t", tokens=300):
    """What is left of an activations' file, and the weights that it is of."""
    digest = {"a": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}.get(weights, weights)
    arrays.write(hits(sweep, source), {}, {"weights": digest, "text": text, "settings": json.dumps({"tokens": tokens})})
    if source.control is None:
        (sweep / source.path / "sae").mkdir(parents=True, exist_ok=True)
        (sweep / source.path / files.WEIGHTS).write_text(weights)


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two SAEs with a session that ann has answered."""
    made = tmp_path / "made"
    session = prepare(made / "study", found_in(made), ["ann"], RATE)[0]
    for n, given in enumerate(read_key(session)):
        entry = {"item": given.name, "answer": "no", "explanation": "", "seconds": 1.0, "at": n}
        append(session.answers / "ann.jsonl", session.study, "ann", entry)
    report(made / "study", [], RATE)
    return made


def found_in(made, **changed):
    found = rateable()
    for source in found.collected:
        collect(made, source)
    return replace(found, origins=[origin(made, one, hits(made, one)) for one in found.collected], **changed)


def answers(sweep):
    return {file.name: file.read_text() for file in (sweep / "study/rate").rglob("*") if file.suffix in (".jsonl", ".json")}


def test_what_is_as_it_was_or_is_taken_away_has_not_changed(sweep):
    origins = known_origins(sweep / "study")
    assert {one.source for one in origins} == {Source(s.path, c) for s in (TOPK, JUMPRELU) for c in (None, "random")}
    assert not changes(sweep, origins) and set_aside(sweep / "study") == []
    (sweep / TOPK.path / files.WEIGHTS).unlink()
    hits(sweep, JUMPRELU).unlink()
    assert not changes(sweep, origins) and known_origins(sweep) == []


@pytest.mark.parametrize("again", ["weights alone", "and collected"])
def test_a_report_refuses_an_sae_that_was_trained_again_or_leaves_it_out(sweep, again):
    (sweep / TOPK.path / files.WEIGHTS).write_text("b") if again == "weights alone" else collect(sweep, TOPK, "b")
    before = answers(sweep)
    with pytest.raises(UsageError, match=rf"{GONE} people rated.* with --leave-out, or move .*rate away, which keeps"):
        report(sweep / "study", [], RATE)
    said = report(sweep / "study", [], RATE, leave_out=True)
    assert said[0] == "model=small/resid/3/topk/32 was trained again since people rated: 5 answers are left out."
    assert not any("topk:" in line for line in said) and any("jumprelu: 0%" in line for line in said)
    assert answers(sweep) == before


def test_a_report_says_that_the_study_was_collected_again(sweep):
    for source in (TOPK, JUMPRELU):
        collect(sweep, source, tokens=600)
    said = report(sweep / "study", [], RATE)
    assert said[0] == ("2 SAEs and controls, such as model=small/resid/3/jumprelu/32, were collected again since people rated: "
                       "they saw excerpts of another text, or another choice of excerpts.")
    assert any("topk: 0%" in line for line in said)


@pytest.mark.parametrize("changed, words", [
    ({"weights": "b"}, "trained"), ({"text": "u"}, "collected"), ({"tokens": 9}, "collected")])
def test_nobody_is_asked_to_rate_a_study_that_was_made_again(sweep, changed, words):
    collect(sweep, TOPK, **changed)
    with pytest.raises(UsageError, match=f"topk/32 was {words} again since raters got their latents: put back what was there"):
        prepare(sweep / "study", rateable(), ["bob"], RATE)


def test_a_study_that_replaces_what_was_rated_puts_the_figures_beside_the_answers(sweep):
    figures = {name: (sweep / "study" / name).read_text() for name in ("ratings.csv", "agreement.json")}
    before = answers(sweep)
    collect(sweep, TOPK, "b")
    (line,) = set_aside(sweep / "study")
    assert line.startswith("model=small/resid/3/topk/32 was trained again since people got latents to rate; ratings.csv and "
                           "agreement.json of these ratings went into ") and "All answers are kept." in line
    assert not any((sweep / "study" / name).exists() for name in figures)
    assert {name: (sweep / "study/rate" / name).read_text() for name in figures} == figures
    report(sweep / "study", [], RATE, leave_out=True)
    set_aside(sweep / "study")
    assert (sweep / "study/rate/ratings.csv").read_text() == figures["ratings.csv"], "the earlier figures stay"
    assert (sweep / "study/rate/ratings.2.csv").is_file()
    assert answers(sweep).items() >= before.items() and len(set_aside(sweep / "study")) == 1


def test_raters_keep_their_latents_when_an_sae_is_added_or_eligible_latents_change(sweep):
    before = [given for given in read_key(prepare(sweep / "study", found_in(sweep), ["ann"], RATE)[0])]
    found = found_in(sweep)
    fewer = {source: list(latents)[3:] for source, latents in found.candidates.items()}
    added = Source("model=small/resid/3/gated/32")
    more = replace(found, candidates=fewer | {added: range(30)}, collected={**found.collected, added: found.collected[TOPK]})
    key = read_key(prepare(sweep / "study", more, ["bob"], RATE)[0])
    assert [given for given in key if given.rater == "ann"] == before
    assert {given.item.source.path for given in key if given.rater == "bob"} == {TOPK.path, JUMPRELU.path}


def test_an_sae_that_is_gone_and_other_limits_are_refused(sweep):
    found = found_in(sweep)
    left = replace(found, candidates={source: some for source, some in found.candidates.items() if source != TOPK})
    with pytest.raises(UsageError, match="topk/32 is not there any more, and ann has latents of it: put it back, or move"):
        prepare(sweep / "study", left, ["ann"], RATE)
    with pytest.raises(UsageError, match=r"min_fires=9: .*rate was begun with other settings"):
        prepare(sweep / "study", replace(found, limits={"min_fires": 9}), ["ann"], RATE)
