"""Passes over what was harvested (activations.passes): the order of the rows, what is harvested, and how it is counted."""
import json
import math
from collections import Counter
from itertools import chain, islice, pairwise
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from small import RESOURCES, job, train_group, trained, untrained, write_text

from saesweep import old_names
from saesweep.config.check import check
from saesweep.config.settings import unique_tokens
from saesweep.data import text_length
from saesweep.data.disk_cache import CachedSource
from saesweep.data.prefetch import ReadAhead, drain
from saesweep.data.stream import ActivationStream, Position
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.loggers.identity import MemberInfo
from saesweep.loggers.wandb_sae import about
from saesweep.report.page import tables
from saesweep.runtime.rng import WINDOW, generator
from saesweep.storage import files, sweep_table, variants
from saesweep.storage.checkpoints import cohorts
from saesweep.study import plan as study_plan
from saesweep.study.passes import Pass
from saesweep.sweep import plan, probe
from saesweep.sweep.inputs import point_of
from saesweep.sweep.jobs import Job
from saesweep.sweep.probe_step import Probed

POINT = HookPoint("numbers", "output")
BATCH, SEED = 16, 3


class Numbered:
    """Windows of `size` rows, each with its number; it keeps how many rows were asked for."""

    def __init__(self, size):
        self.size, self.next, self.asked = size, 0, []

    def window(self, rows):
        self.asked.append(rows)
        self.next += min(self.size, rows)
        return {POINT: torch.arange(self.next - min(self.size, rows), self.next)[:, None].float()}

    def window_by_micro_batch(self, rows):
        yield self.size
        return self.window(rows)

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def stream(steps, size, passes, **more):
    return ActivationStream(Numbered(size), steps=steps, batch_tokens=BATCH, stream_seed=SEED, passes=passes, center=True,
                            max_norm=None, statistics=BATCH, **more)


def numbers(stream, count=None):
    """The numbers of the rows of each batch."""
    return [stream.statistics[POINT].undo(batch[POINT])[:, 0].round().int().tolist() for batch in islice(stream, count)]


def settings(steps, passes):
    return {"tokens": steps * BATCH, "batch_tokens": BATCH, "activations": {"passes": passes}}


# windows of 6 batches and 4 rows
SIZES = [(30, 100, 1), (30, 100, 2), (31, 100, 3), (7, 1000, 3), (20, 16, 4), (5, 64, 8), (12, 100, 2)]


@pytest.mark.parametrize("steps, size, passes", SIZES)
def test_every_window_is_handed_out_as_often_as_there_are_passes_and_the_last_is_no_larger_than_needed(steps, size, passes):
    s = stream(steps, size, passes)
    batches = numbers(s)
    assert len(batches) == steps and {len(batch) for batch in batches} == {BATCH}
    left, windows = steps, []
    for asked in s.source.asked:
        assert asked == math.ceil(left / passes) * BATCH
        here = min(size // BATCH, math.ceil(left / passes)) * min(passes, left)
        windows.append(Counter(row for batch in batches[steps - left :][:here] for row in batch))
        left -= here
    assert left <= 0 and all(set(window.values()) == {passes} for window in windows[:-1])
    assert max(windows[-1].values()) - min(windows[-1].values()) <= 1
    assert len(windows[0].keys() & windows[-1].keys()) == (len(windows[0]) if len(windows) == 1 else 0)
    assert len(sum(windows, Counter())) == unique_tokens(settings(steps, passes))


def test_each_pass_over_a_window_has_an_order_of_its_own_and_the_first_is_that_of_a_single_pass():
    once, thrice = numbers(stream(6, 100, 1)), numbers(stream(18, 100, 3))
    order = torch.randperm(96, generator=generator(SEED, WINDOW, 0))
    assert once == [order[i : i + BATCH].tolist() for i in range(0, 96, BATCH)]
    passes = [thrice[i : i + 6] for i in (0, 6, 12)]
    assert passes[0] == once
    for one, other in ((0, 1), (0, 2), (1, 2)):
        same = [a == b for x, y in zip(passes[one], passes[other], strict=True) for a, b in zip(x, y, strict=True)]
        assert sum(same) < 8 and {*chain(*passes[one])} == {*chain(*passes[other])}


@pytest.mark.parametrize("steps, size, passes", SIZES)
def test_a_stream_continues_from_the_position_after_any_batch(steps, size, passes):
    whole = numbers(stream(steps, size, passes))
    for step in range(1, steps):
        one = stream(steps, size, passes)
        numbers(one, step)
        position = json.loads(json.dumps(one.position_after(step)._asdict()))
        other = stream(steps, size, passes)
        other.resume(Position(**position), one.statistics)
        assert numbers(other) == whole[step:], step


class Ahead(ReadAhead):
    """Keeps how many rows of the next window should be there after each batch."""

    def __init__(self):
        self.rows, self.steps = [], None

    def begin(self, steps):
        self.steps = steps

    def until(self, rows):
        self.rows.append(rows)

    def window(self):
        steps, self.steps = self.steps, None
        return steps and drain(steps)


class WithSinks(Numbered):
    """Of every 20 rows one to three are sinks, more in later windows."""

    def window(self, rows):
        found = super().window(rows)[POINT]
        sinks = found % 20 < 1 + found // 200
        return {POINT: torch.where(sinks, 1e6, found % 97)}


def even_and_not(steps=36, passes=2):
    """The values of the rows of each batch of windows of 192 rows, with sinks left out."""
    for even in (True, False):
        s = ActivationStream(WithSinks(200), steps=steps, batch_tokens=BATCH, stream_seed=SEED, passes=passes, center=True,
                             max_norm=8.0, statistics=200, even=even)
        yield numbers(s)


def test_even_batches_are_equal_in_size_and_leave_out_few_rows_of_those_that_are_not():
    even, uneven = even_and_not()
    assert len({len(batch) for batch in uneven}) > 2 and max(max(batch) for batch in even) < 97
    assert {len(batch) for batch in even[:24]} == {15} == {int(BATCH * (1 - 1.25 * 0.05))}
    for first, end in pairwise((0, 12, 24, 30, 36)):  # passes of the two windows
        whole, found = ([*chain(*batches[first:end])] for batches in (uneven, even))
        assert found == whole[: len(found)] and len(whole) - len(found) < 12


def test_even_batches_of_a_window_with_more_sinks_are_smaller_and_equal_in_size():
    even, _ = even_and_not(72, 1)
    sizes = [{len(batch) for batch in even[first : first + 12]} for first in range(0, 72, 12)]
    assert all(len(size) == 1 for size in sizes) and sizes[0] == {15} and max(sizes[-1]) < 15


def test_reading_ahead_is_spread_over_all_passes_of_a_window():
    ahead = Ahead()
    s = stream(24, 100, 3, ahead=ahead)
    assert numbers(s) == numbers(stream(24, 100, 3))
    assert ahead.rows[:18] == [math.ceil(BATCH * batch / 3) for batch in range(1, 19)]
    assert s.source.asked == [8 * BATCH, 2 * BATCH]


# Trainings


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


TWICE = "activations.passes=2"


def states(module):
    return [member.state_dict() for member in module.members]


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        for key in other:
            assert torch.equal(one[key], other[key]), key


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("how", ["harvested", "from disk", "synthetic"])
def test_a_training_killed_in_its_second_pass_resumes_bitwise(how, text, tmp_path):
    """Of the three windows of 16 and 9 batches, the first is handed out up to step 32."""
    more = ["cache=disk", f"cache.folder={tmp_path}/cache"] if how == "from disk" else []
    given = None if how == "synthetic" else text
    jobs = [job(given, f"arch={arch}", "save_tokens=1408", TWICE, *more) for arch in ("jumprelu", "topk")]
    whole = states(trained(jobs, tmp_path / "whole"))

    def killed(module):
        if module.steps_done == 30:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained(jobs, tmp_path / "killed", progress=killed)
    assert [cohort.step for cohort in cohorts([tmp_path / "killed/0"])] == [22]
    assert_same(states(trained(jobs, tmp_path / "killed")), whole)
    once = states(trained([one | {"activations": one["activations"] | {"passes": 1}} for one in jobs], tmp_path / "once"))
    assert not torch.equal(once[0]["sae.W_dec"], whole[0]["sae.W_dec"])


@pytest.mark.slow
def test_the_cache_of_one_number_of_passes_serves_every_other(text, tmp_path):
    def run(passes):
        cfg = job(text, "arch=topk", "cache=disk", f"cache.folder={tmp_path}/cache", f"activations.passes={passes}")
        _, made, inputs = untrained([cfg])
        assert isinstance(inputs.source, CachedSource)
        calls, make = [], inputs.source.make
        inputs.source.make = lambda: calls.append(1) or make()
        return [batch[point_of(cfg)] for batch in made], len(calls)

    wanted, calls = run(1)
    assert calls >= 3 and len(wanted) == 50
    for passes in (2, 3):
        found, calls = run(passes)
        assert calls == 0 and len(found) == 50 and all(map(torch.equal, found[:10], wanted))


# What is counted, and what is said


def test_a_config_without_the_key_is_one_of_a_single_pass():
    cfg = job(None)
    once = old_names.renewed(cfg)
    assert "passes" not in once["activations"] and old_names.renewed(once) == once and check(once) is None
    assert unique_tokens(once) == unique_tokens(cfg) == 3200
    assert old_names.renewed(job(None, TWICE))["activations"]["passes"] == 2 and unique_tokens(job(None, TWICE)) == 1600


@pytest.mark.parametrize("value", ["0", "1.5", "null", "true"])
def test_other_numbers_of_passes_are_refused(value):
    with pytest.raises(UsageError, match=rf"activations\.passes={value}"):
        check(job(None, f"activations.passes={value}"))


@pytest.mark.slow
def test_tokens_are_counted_as_trained_and_as_harvested(tmp_path):
    folder = tmp_path / "synthetic/resid.0/topk/4"
    folder.mkdir(parents=True)
    cfg = job(None, "arch=topk", "tokens=3200", "activations.passes=3")
    (numbers,) = train_group([cfg], [folder])
    assert (numbers["tokens"], numbers["unique_tokens"]) == (3200, 17 * 64) and json.loads(
        (folder / files.NUMBERS).read_text())["unique_tokens"] == 17 * 64


def table(tmp_path, **found):
    """The row of a finished SAE with these numbers."""
    folder = tmp_path / "m/resid.0/topk/4"
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / files.NUMBERS).write_text(json.dumps({"l0": 4.0, "fvu": 0.1, **found}))
    (folder / files.RESOLVED).write_text(json.dumps(old_names.renewed(job(None, "arch=topk"))))
    return sweep_table.table(tmp_path)


def test_the_table_has_both_counts_and_an_older_result_has_harvested_what_it_trained_on(tmp_path):
    (new,) = table(tmp_path, tokens=3200, unique_tokens=1600).to_dict("records")
    assert (new["tokens"], new["unique_tokens"]) == (3200, 1600)
    (old,) = table(tmp_path, tokens=3200).to_dict("records")
    assert (old["tokens"], old["unique_tokens"]) == (3200, 3200)


def test_wandb_knows_both_counts_from_the_start(tmp_path):
    def config(*more):
        return about(MemberInfo.of(old_names.renewed(job(None, "arch=topk", *more)), tmp_path / "a/b/c/d"))["config"]

    assert (config(TWICE)["tokens"], config(TWICE)["unique_tokens"]) == (3200, 1600)
    assert config()["tokens"] == 3200 and "unique_tokens" not in config()


def test_saes_of_several_numbers_of_passes_are_curves_named_by_it():
    jobs = [old_names.renewed(job(None, "arch=topk", f"activations.passes={passes}")) for passes in (1, 2)]
    assert variants.variants(jobs) == [{"passes": "1"}, {"passes": "2"}]
    assert variants.variants(jobs[:1]) == [{}]


def test_a_later_key_of_an_architecture_names_the_saes_of_that_architecture():
    words = [("arch=jumprelu", "arch.frequency_scale=0.1"), ("arch=jumprelu",), ("arch=topk",)]
    jobs = [old_names.renewed(job(None, *some)) for some in words]
    assert variants.variants(jobs) == [{"frequency_scale": "0.1"}, {"frequency_scale": "null"}, {}]
    assert variants.named_keys(["frequency_scale", "passes"], jobs[1]) == ["activations.passes", "arch.frequency_scale"]


def test_the_page_shows_the_harvested_tokens_where_they_are_fewer(tmp_path):
    new, old = table(tmp_path, tokens=3200, unique_tokens=1600), table(tmp_path, tokens=3200)
    assert "<th scope=\"col\">unique_tokens</th>" in tables.table(new) and "<td>1600</td>" in tables.table(new)
    assert "unique_tokens" not in tables.table(old)
    assert "unique_tokens" in tables.table(pd.concat([old, new], ignore_index=True))


def test_the_plan_says_how_often_each_token_is_read(tmp_path):
    def said(*more):
        return plan._shared([Mock(spec=Job, settings=job(None, *more), folder=tmp_path)])

    assert said().endswith("1 SAE, 3,200 tokens in batches of 64")
    assert said(TWICE).endswith("1 SAE, 3,200 tokens, each read 2 times: 1,600 harvested, in batches of 64")


def test_the_plans_time_has_less_harvest_with_more_passes(text, monkeypatch):
    monkeypatch.setattr(probe, "probe_step", lambda *_: Probed(seconds=1.0, step=0, latents=0))
    monkeypatch.setattr(probe, "_evaluation", lambda *_: (0.0, 0))
    monkeypatch.setattr(probe, "_fill", lambda *_: (1.0, 0))
    rows = {point_of(job(text)): torch.randn(64, 8)}
    monkeypatch.setattr(probe, "_probe_rows", lambda *_: probe.Read(rows, seconds=6.0, forward=0))
    once, thrice = (probe.estimate([job(text, "arch=topk", f"activations.passes={passes}")], RESOURCES)["seconds"]
                    for passes in (1, 3))
    assert once == 3200 * 7.0 and thrice == 3200 * 3.0


def test_the_time_of_a_study_is_by_what_the_training_harvested(tmp_path):
    (tmp_path / files.CURVE).write_text("tokens,tokens_per_second\n3200,600.0\n")
    text = dict.fromkeys(study_plan.HALVES, Mock(ordinary=np.ones(30_000)))
    subjects = [Mock(job=tmp_path, config=job(None, TWICE))]
    said = study_plan._time(Mock(spec=Pass, subjects=subjects, text=text))
    assert said == ["time: about 3.3 min, at the 300 tokens per second read in training"]


def test_a_text_suffices_for_more_tokens_in_more_passes(text):
    """The error proposes tokens, and passes, with which it does."""
    corpus, tokenizer = RESOURCES.text(job(text))
    found = sum(len(ids) for ids in text_length.tokenized(corpus.one_pass("train"), tokenizer))

    def require(tokens, passes):
        text_length._require_training(corpus, tokenizer, job(text, f"tokens={tokens}", f"activations.passes={passes}"))

    require(found // 2, 1)
    require(found, 2)
    with pytest.raises(UsageError, match=r"are asked for: set tokens=\d+ at most, activations\.passes=3, "):
        require(2 * found, 1)
    require(2 * found, 3)
    with pytest.raises(UsageError, match=r"with activations\.passes=2 are asked for.*set tokens=(\d+) at most") as refused:
        require(3 * found, 2)
    require(int(str(refused.value).split("set tokens=")[1].split()[0]), 2)
