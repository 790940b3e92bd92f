"""The groups of examples of a latent."""
import dataclasses

import numpy as np
import pytest
from study_halves import half, text_half

from saesweep.study.examples import ASKED, Places, choose, common_tokens
from saesweep.study.hits import LEFT


@pytest.fixture(scope="module")
def made():
    """Latents: 0 often on `e`, with values from 0 to 1; 1 nearly everywhere; 2 twice; 3 as 0, its hits not kept."""
    draw = np.random.default_rng(0)
    text = text_half(["".join(draw.choice(list("abcdefghijklmnop "), 500)) for _ in range(80)], context=64, pool=5000)
    often = (text.tokens == ord("e") + 3) & (draw.random(len(text.tokens)) < 0.3)
    a = np.stack([often, draw.random(len(text.tokens)) < 0.5, np.isin(np.arange(len(text.tokens)), [30, 3000]), often], 1)
    return half(text, a * draw.random(a.shape), kept=np.arange(3)), Places(text)


def groups(made, latent: int, **more):
    found, places = made
    return choose(places, found, latent, common_tokens(found, latent), **more)


def test_every_group_has_what_it_is_asked_for_and_no_two_windows_share_a_token(made):
    found, text = groups(made, 0), made[0].text
    assert {name: len(group.positions) for name, group in found.items()} == dict(ASKED)
    positions = np.concatenate([group.positions for group in found.values()])
    assert len(np.unique(text.block[positions])) == len(positions)
    assert min(np.bincount(text.block)[0], made[1].left(positions).min()) >= LEFT
    for group in found.values():
        assert np.bincount(text.document[group.positions]).max() <= 3 and not group.insufficient


def test_the_order_of_the_groups(made):
    found, (one, _) = groups(made, 0), made
    positions, values = one.hits.of(0)
    value = dict(zip(positions.tolist(), values.tolist(), strict=True))
    strongest = [value[at] for at in found["top"].positions.tolist()]
    assert strongest == sorted(strongest, reverse=True) and min(strongest) > np.quantile(values, 0.9)
    for name, parts in (("decile", 10), ("interval", 5)):
        group = found[name]
        assert np.bincount(group.part).tolist() == [5] * parts
        mean = [np.mean([value[at] for at in group.positions[group.part == part].tolist()]) for part in range(parts)]
        assert mean == sorted(mean)
    share = np.array([value[at] for at in found["interval"].positions.tolist()]) / values.max()
    assert (found["interval"].part == np.floor(5 * share).clip(max=4)).all()


def test_examples_that_do_not_divide_by_the_number_of_deciles_are_spread_over_them(made):
    for count, parts in ((4, [2, 4, 7, 9]), (12, [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9])):
        assert groups(made, 0, asked={"decile": count})["decile"].part.tolist() == parts


def test_silent_windows_are_silent_throughout_and_hold_the_token_where_they_should(made):
    found, (one, _) = groups(made, 0), made
    active = set(one.hits.of(0)[0].tolist())
    for name in ("random", "same_token"):
        for position in found[name].positions.tolist():
            window = one.text.window(position)
            assert not active & set(range(window.start, window.stop))
            assert name == "random" or ord("e") + 3 in one.text.tokens[window]


def test_a_latent_that_is_active_almost_everywhere_has_no_silent_window(made):
    found = groups(made, 1)
    assert len(found["random"].positions) == 0 and found["random"].insufficient and not found["top"].insufficient


def test_intervals_below_a_threshold_are_empty_and_no_other_one_is_filled_up(made):
    one, places = made
    active = one.hits.of(0)[0]
    a = np.zeros((len(one.text.tokens), 1))
    a[active, 0] = np.linspace(0.7, 1, len(active))
    found = choose(places, half(one.text, a), 0, common_tokens(one, 0))["interval"]
    assert np.bincount(found.part, minlength=5).tolist() == [0, 0, 0, 5, 5] and found.asked == 25 and found.insufficient


def test_a_latent_that_fires_twice_is_insufficient(made):
    found = groups(made, 2)
    assert found["top"].insufficient and found["decile"].insufficient and not found["random"].insufficient


def test_without_all_activations_there_are_examples_but_no_silent_windows(made):
    found = groups(made, 3)
    assert len(found["decile"].positions) > 0 and len(found["top"].positions) > 0
    assert len(found["random"].positions) == 0 == len(found["same_token"].positions)


def test_a_neighbour_lends_windows_in_which_the_latent_is_silent(made):
    found = groups(made, 2, asked={"neighbour": 10}, neighbour=0)["neighbour"]
    assert set(found.positions.tolist()) <= set(made[0].hits.of(0)[0].tolist()) and len(found.positions) == 10
    assert groups(made, 2, asked={"neighbour": 10})["neighbour"].insufficient


def test_windows_have_the_bounds_of_the_text(made):
    one, places = made
    for position in (0, 63, 64, 100, len(one.text.tokens) - 1):
        first, last = places.bounds(np.array([position]))
        assert one.text.window(position) == slice(int(first[0]), int(last[0]))


def test_the_commonest_tokens_are_those_of_fit(made):
    assert common_tokens(made[0], 0).tolist() == [ord("e") + 3]
    empty = dataclasses.replace(made[0], top=made[0].top._replace(positions=np.full_like(made[0].top.positions, -1)))
    assert common_tokens(empty, 0).tolist() == []
