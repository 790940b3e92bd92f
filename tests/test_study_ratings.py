"""Ratings read back, and what is said about them."""
import csv
import json
import math
import re

import numpy as np
import pytest
from made_ratings import rateable

from saesweep.errors import UsageError
from saesweep.study import report
from saesweep.study.people.agreed import agreed, over_items, with_oneself
from saesweep.study.people.answers import append
from saesweep.study.people.files import agreement, ratings_csv
from saesweep.study.people.prepare import prepare
from saesweep.study.people.proportions import Estimate
from saesweep.study.people.read import Rating, Ratings, read
from saesweep.study.people.session import read_key
from saesweep.study.people.settings import settings
from saesweep.study.people.shares import counted, shares, verdict, yes_by_latent
from saesweep.study.people.words import sentences

RATE = settings({"features": 5, "common": 0.4, "repeated": 0.1, "draws": 200})
TEXT = {"yes": "a word", "skip": "too long"}


@pytest.fixture
def session(tmp_path):
    return prepare(tmp_path / "made/study", rateable(), ["ann", "bob"], RATE)[0]


def answered(session, rater, answer_of):
    """An entry per item of a rater. answer_of: from its row of the key to an answer."""
    mine = [given for given in read_key(session) if given.rater == rater]
    return [{"item": given.name, "answer": answer, "explanation": TEXT.get(answer, ""), "seconds": 2.0, "at": 1000 + n}
            for n, given in enumerate(mine) if (answer := answer_of(given))]


def saved(session, rater, entries, name="ratings.json", **changes):
    file = session.folder.parents[2] / name
    file.write_text(json.dumps({"study": session.study, "rater": rater, "saved": "", "answers": entries} | changes))
    return file


def rating(answer, latent=0, rater="ann", arch="topk", control="", common=False, repeated=False, path=None):
    return Rating(rater, "x", path or f"{arch}/32", control, arch, latent, answer, "", 1.0, common, repeated)


# reading


def test_files_and_the_servers_lines_are_read_together(session):
    file = saved(session, "ann", answered(session, "ann", lambda given: "no"))
    for entry in answered(session, "bob", lambda given: "yes")[:3]:
        append(session.answers / "bob.jsonl", session.study, "bob", entry)
    found = read(session, [file])
    assert [(row.rater, row.answer) for row in found.rows] == [("ann", "no")] * 12 + [("bob", "yes")] * 3
    assert found.open == {"ann": 0, "bob": 9} and found.conflicts == []
    assert {(row.path, row.control) for row in found.rows} >= {("model=small/resid/3/topk/32", "")}


def test_an_answer_that_was_taken_back_is_none(session):
    entries = answered(session, "ann", lambda given: "no")
    entries.append(entries[0] | {"answer": None, "at": 5000})
    found = read(session, [saved(session, "ann", entries)])
    assert len(found.rows) == 11 and found.open["ann"] == 1 and entries[0]["item"] not in {row.item for row in found.rows}


def test_two_files_that_differ_are_a_conflict_and_the_latest_answer_counts(session):
    entries = answered(session, "ann", lambda given: "no")
    first = saved(session, "ann", entries, "a.json")
    second = saved(session, "ann", [entries[0] | {"answer": "maybe", "at": 9000}, *entries[1:4]], "b.json")
    found = read(session, [first, second])
    given = next(given for given in read_key(session) if given.name == entries[0]["item"])
    control = "random control of " if given.item.source.control else ""
    assert found.conflicts == [f"ann, latent {given.item.latent} of {control}{given.item.source.path}: no in a.json, maybe in "
                               "b.json; maybe is the latest and counts."]
    assert {row.item: row.answer for row in found.rows}[entries[0]["item"]] == "maybe"


def test_ratings_of_another_study_are_refused(session):
    with pytest.raises(UsageError, match=f"belongs to study 0123, and .*rate is study {session.study}: take the file away"):
        read(session, [saved(session, "ann", [], study="0123")])
    with pytest.raises(UsageError, match="has no rater eve; there are ann, bob"):
        read(session, [saved(session, "eve", [])])


def test_what_is_no_file_of_ratings_is_refused_by_name(session, tmp_path):
    for name, content in (("a.json", "no JSON"), ("b.json", "[1, 2]"), ("c.jsonl", '{"rater": "ann"}\n')):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match=f"{name} is not a file of ratings"):
            read(session, [tmp_path / name])
    for name in ("gone.json", "gone.jsonl"):
        with pytest.raises(UsageError, match=f"{name} is not a file of ratings"):
            read(session, [tmp_path / name])
    bobs = answered(session, "bob", lambda given: "no" if not given.item.common else None)
    with pytest.raises(UsageError, match="was not given to this rater; the file was changed by hand"):
        read(session, [saved(session, "ann", bobs)])


# what they show


def test_a_latent_counts_once_however_many_rated_it_and_second_ratings_and_skips_do_not():
    rows = [rating("yes", 0), rating("no", 0, "bob"), rating("yes", 1), rating("no", 2), rating("no", 1, repeated=True),
            rating("skip", 3), rating("yes", 0, control="random")]
    assert yes_by_latent(counted(rows)) == {("topk/32", "", 0): 0.5, ("topk/32", "", 1): 1, ("topk/32", "", 2): 0,
                                            ("topk/32", "random", 0): 1}
    found = shares(rows, RATE)
    topk = found["architectures"]["topk"]
    assert (topk["latents"], topk["ratings"], topk["yes"].value, topk["mean"].value) == (3, 4, 0.5, 1.0)
    assert topk["yes"] == pytest.approx((0.5, 0.1253, 0.8747), abs=5e-5)
    assert (found["control"]["latents"], found["control"]["yes"].value) == (1, 1.0)


def test_the_bootstrap_is_over_latents_within_raters():
    rows = [rating(answer, n, rater) for rater, answers in (("ann", ["yes"] * 4), ("bob", ["no"] * 4))
            for n, answer in enumerate(answers)]
    assert shares(rows, RATE)["architectures"]["topk"]["mean"] == Estimate(1.0, 1.0, 1.0), "no spread within either rater"
    rows = [rating("yes" if n % 2 else "no", n, "ann") for n in range(400)]
    mean = shares(rows, settings({"draws": 4000}))["architectures"]["topk"]["mean"]
    assert mean == pytest.approx((1.0, 1 - 1.96 * 0.05, 1 + 1.96 * 0.05), abs=0.01)
    assert math.isnan(shares([rating("yes")], RATE)["architectures"]["topk"]["mean"].low), "one latent has no spread"


def test_a_verdict_is_what_the_interval_shows():
    ends = [(0.01, 0.2), (-0.2, -0.01), (-0.04, 0.05), (-0.06, 0.04), (math.nan, math.nan)]
    assert [verdict(Estimate(0, *both), 0.05) for both in ends] == ["better", "worse", "equal", "open", "none"]


def test_agreement_is_measured_on_common_latents_alone():
    rows = [rating(answer, n, rater, common=True) for rater, answers in (("ann", "0122102102"), ("bob", "0121102212"))
            for n, answer in enumerate(["no", "maybe", "yes"][int(digit)] for digit in answers)]
    rows += [rating("no", 99, "ann"), rating("yes", 99, "bob")]
    found = agreed(rows, RATE)
    assert found["cohen_quadratic"][0]["kappa"].value == pytest.approx(0.7619, abs=5e-5)
    assert found["latents"] == 10 and found["fleiss"]["latents"] == 10 and found["raters"] == ["ann", "bob"]
    low, high = found["cohen_quadratic"][0]["kappa"][1:]
    assert 0 < low < 0.7619 < high <= 1


def test_a_latent_shown_twice_counts_if_both_answers_are_ratings():
    rows = [rating("yes", 0), rating("yes", 0, repeated=True), rating("yes", 1), rating("no", 1, repeated=True),
            rating("skip", 2), rating("no", 2, repeated=True), rating("no", 3, "bob"), rating("no", 3, repeated=True)]
    found = with_oneself(rows)
    assert (found["latents"], found["same"], found["share"].value) == (2, 1, 0.5)


def test_agreement_that_is_not_defined_has_no_interval():
    assert all(math.isnan(number) for number in over_items(lambda table: math.nan, np.zeros((2, 4)), RATE))
    assert math.isnan(over_items(lambda table: 1.0, np.zeros((2, 1)), RATE).value)


# words


def words(rows, **kept):
    ratings = Ratings(rows, kept.get("conflicts", []), kept.get("open", {}))
    return sentences(ratings, agreement(ratings, RATE), RATE.delta)


def test_a_difference_is_said_where_the_interval_excludes_0():
    rows = [rating("yes", n, arch="gated") for n in range(40)] + [rating("no", n, arch="topk") for n in range(40)]
    said = words(rows)
    assert said[0] == "1 rater gave 80 answers about 80 latents of the SAEs; 0 of them are skips."
    assert said[2] == "  gated: 100% [91, 100] of 40 latents, mean 2.00 [2.00, 2.00]"
    assert said[4] == ("gated has a larger share of yes than topk, by 100 points [88, 100]; the means differ by +2.00 [+2.00, "
                       "+2.00].")
    turned = words([row._replace(answer="yes" if row.answer == "no" else "no") for row in rows])
    assert turned[4].startswith("topk has a larger share of yes than gated, by 100 points [88, 100]")


def test_where_the_interval_holds_0_nothing_is_claimed():
    rows = [rating("yes" if n % 2 else "no", n, arch=arch) for arch in ("gated", "topk") for n in range(20)]
    said = words(rows)
    assert said[4].startswith("gated and topk are not told apart: 0 points [-28, 28]; the means differ by ")
    assert said[5] == "No latent of the random control was rated, so that it is open whether people can tell."
    assert not any(re.search("better|more interpretable|significant", sentence) for sentence in said)


def test_control_agreement_and_open_items_are_said():
    rows = [rating("yes", n, rater, common=True) for rater in ("ann", "bob") for n in range(30)]
    rows += [rating("no", n, control="random") for n in range(20)]
    rows += [rating("maybe", 30, rater, common=True) for rater in ("ann", "bob")] + [rating("yes", 0, repeated=True)]
    said = words(rows, open={"ann": 0, "bob": 3})
    assert said[1] == "Not answered yet: bob 3."
    assert said[3:6] == ["  topk: 97% [84, 99] of 31 latents, mean 1.97 [1.92, 2.00]",
                         "  random control: 0% [0, 16] of 20 latents, mean 0.00 [0.00, 0.00]",
                         "The SAEs have a larger share of yes than the random control, by 97 points [76, 99]."]
    assert said[6].startswith("Agreement beyond chance on 31 common latents: Krippendorff's ordinal alpha 1.00 [1.00, 1.00]; "
                              "Fleiss' kappa 1.00")
    assert said[8] == "Of 1 latent shown twice to a rater, 1 got the same answer: 100% [21, 100]."


def test_all_answers_the_same_are_no_agreement_beyond_chance():
    rows = [rating("yes", n, rater, common=True) for rater in ("ann", "bob") for n in range(5)]
    assert any("alpha not defined (all answers are the same, or too few)" in sentence for sentence in words(rows))
    assert words([])[0] == "0 raters gave 0 answers about 0 latents of the SAEs; 0 of them are skips."


# the command


def test_report_writes_the_tables_and_prints_what_they_show(session, capsys):
    sweep = session.folder.parents[1]
    for rater, answer in (("ann", "yes"), ("bob", "maybe")):
        control = lambda given, answer=answer: "no" if given.item.source.control else answer  # noqa: E731
        saved(session, rater, answered(session, rater, control), f"{rater}.json")
    files = [str(session.folder.parents[2] / f"{rater}.json") for rater in ("ann", "bob")]
    report.main([str(sweep), *files])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 raters gave 24 answers about 16 latents of the SAEs; 0 of them are skips."
    with (sweep / "study/ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["rater", "item", "path", "control", "latent", "answer", "explanation", "seconds", "repeated"]
    assert len(rows) == 24 and sum(row["control"] == "random" for row in rows) >= 2
    found = json.loads((sweep / "study/agreement.json").read_text())
    assert found["words"] == said and found["architectures"]["topk"]["yes"]["value"] == pytest.approx(0.5)
    assert found["agreement"]["fleiss"]["kappa"].keys() == {"value", "low", "high"} and found["conflicts"] == []


def test_a_line_break_or_quote_in_an_explanation_survives_the_table():
    row = rating("yes")._replace(explanation='a "word",\nand more')
    assert next(csv.DictReader(ratings_csv([row]).splitlines(keepends=True)))["explanation"] == row.explanation


def test_a_sweep_that_nobody_rated_is_refused_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="nobody has been asked to rate; begin with"):
        report.main([str(tmp_path)])
