"""Which latents a rater gets."""
import hashlib
import hmac
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from saesweep.errors import UsageError
from saesweep.study.people.draw import Item, Source, blind, draw, study_id
from saesweep.study.people.plan import plan
from saesweep.study.people.settings import settings

PATHS = [f"{arch}/{l0}" for arch in ("gated", "jumprelu", "topk") for l0 in (16, 32, 64)]
CANDIDATES = {Source(path, control): range(1000) for path in PATHS for control in (None, "random")}
ARCHS = {path: path.split("/")[0] for path in PATHS}
RATE = settings()


def items(raters=5, candidates=CANDIDATES, rate=RATE):
    return [draw(candidates, rater, rate) for rater in range(raters)]


def test_a_rater_gets_as_many_latents_of_every_sae_and_one_in_ten_of_the_control():
    for mine in items():
        once = [item for item in mine if not item.repeated]
        trained = Counter(item.source.path for item in once if item.source.control is None)
        assert trained == dict.fromkeys(PATHS, 5)
        assert len(once) == 50 and len(mine) == 53 and sum(item.source.control == "random" for item in once) == 5


def test_a_fifth_is_common_to_all_raters_and_nothing_else_is_shared():
    each = [{(item.source, item.latent) for item in mine if not item.repeated} for mine in items()]
    common = set.intersection(*each)
    assert len(common) == 9 and {source.path for source, _ in common} == set(PATHS)
    assert len(set.union(*each)) == 9 + 5 * (50 - 9)
    assert {(i.source, i.latent) for i in items()[0] if i.common and not i.repeated} == common


def test_one_in_twenty_comes_again_later_under_another_name():
    for mine in items():
        for n, item in enumerate(mine):
            if item.repeated:
                before = mine.index(item._replace(repeated=False))
                assert before < 3 and n > len(mine) // 2 - 3
        names = [blind(b"secret", item) for item in mine]
        assert sum(item.repeated for item in mine) == 3 and len(set(names)) == len(names) == 53


def test_a_draw_is_reproducible_and_does_not_depend_on_later_raters_or_the_order_of_the_saes():
    backwards = dict(reversed(CANDIDATES.items()))
    assert items() == items(candidates=backwards) and items(2) == items(5)[:2]
    assert [(i.source.path, i.latent) for i in items()[1][:3]] == [
        ("jumprelu/64", 0), ("topk/64", 0), ("jumprelu/32", 6)]
    other = items(rate=replace(RATE, seed=1))
    assert other[0] != items()[0] and set(other[0]) - set(items()[0]) == {i for i in other[0] if i.repeated} - set(items()[0])


def test_the_order_mixes_the_architectures():
    archs = [item.source.path.split("/")[0] for item in items()[0]]
    assert sum(a != b for a, b in pairwise(archs)) > 25


def test_an_sae_of_few_eligible_latents_gives_what_it_has():
    few = {source: range(7) if source.path == "topk/16" else latents for source, latents in CANDIDATES.items()}
    counts = [sum(i.source == Source("topk/16") and not i.repeated for i in mine) for mine in items(3, few)]
    assert counts == [5, 3, 1] and plan(few, ARCHS, 3, RATE)[0] == "Each of 3 raters gets 48 to 53 items:"


def test_without_a_control_there_are_only_latents_of_saes():
    trained = {source: latents for source, latents in CANDIDATES.items() if source.control is None}
    assert {item.source.control for item in items(candidates=trained)[0]} == {None}


def test_a_name_is_the_hmac_of_path_and_latent():
    found = hmac.new(b"secret", b"topk/16|7", hashlib.sha256).hexdigest()
    assert blind(b"secret", Item(Source("topk/16"), 7)) == found[:12]
    assert blind(b"secret", Item(Source("topk/16", "random"), 7)) != found[:12] != blind(b"other", Item(Source("topk/16"), 7))
    assert study_id(b"secret") != study_id(b"other") and len(study_id(b"secret")) == 12


def test_the_plan_says_beforehand_what_difference_the_ratings_can_show():
    assert plan(CANDIDATES, ARCHS, 5, RATE) == [
        "Each of 5 raters gets 53 items:",
        "5 latents of each of 9 SAEs, of which all raters get 1; 5 of the random control; 3 of these a second time.",
        "Rated are 63 latents of gated, 63 of jumprelu, 63 of topk.",
        "With 63 latents a side and shares of yes near 60%, the 95% interval of a difference between two shares reaches about "
        "17 points to either side, and a true difference of 24 points is found by 8 studies in 10.",
    ]


@pytest.mark.parametrize(("key", "value", "message"), [
    ("common", 1.5, r"rate.common=1.5: is a share, from 0 to 1"), ("features", 0, r"rate.features=0: must be at least 1"),
    ("colour", 1, r"rate.colour: there is no such key; there are features, common"),
])
def test_settings_out_of_range_are_refused(key, value, message):
    with pytest.raises(UsageError, match=message):
        settings({key: value})
