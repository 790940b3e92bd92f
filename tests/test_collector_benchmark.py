"""The benchmark of the study's collector, at a size that takes seconds."""
import numpy as np
import pytest
from benchmarks import collector, made_hits
from benchmarks.collector_ours import dense, sparse

from saesweep.study.accumulator import BYTES


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("benchmarks.collector_ours.BATCH", 64)


def test_made_hits_are_ascending_in_each_row_and_their_dense_form_has_no_others():
    hits = made_hits.draw(0, rows=50, width=40, l0=8)
    assert (np.diff(hits.rows * 40 + hits.columns) > 0).all() and hits.starts[-1] == len(hits.values)
    f = hits.dense(40)
    assert np.array_equal(np.flatnonzero(f), hits.rows * 40 + hits.columns) and (f > 0).sum(1).max() <= 8


def test_the_state_of_a_latent_is_2768_bytes_in_each_half():
    assert BYTES == 2768


def test_lists_in_memory_are_counted_as_sixteen_bytes_a_hit(small_batches):
    found = sparse(width=64, l0=4, saes=2, tokens=200)
    assert found["tokens"] == 800 and found["state"] == 2 * 2 * 64 * BYTES
    assert found["lists"] == 16 * 2 * found["hits"]  # each hit is in both lists: few latents, few tokens
    assert set(found["stages"]) == {"collect", "write"} and found["written"] >= found["collected"]


def test_dense_latents_are_collected_and_their_examples_shown(small_batches):
    found = dense(width=64, l0=8, batches=2, rows=128, context=64, latents=[0, 1])
    assert found["shown"] > 0 and found["disk"] > 64 * BYTES and set(found["stages"]) == {"collect", "write", "examples"}


def test_a_row_of_growth_gives_nanoseconds_and_tokens_per_cpu_second():
    answer = {"stages": {"collect": [4e-3, 2e-3]}, "hits": 10_000, "tokens": 1000, "state": 2e6, "lists": 1e6,
              "collected": 4e6, "written": 5e6}
    assert collector._growth_row((64, 10, 1), [answer]) == "| 64 | 10 | 1 | 200 (400) | 500,000 | 2 | 1 | 4 | 5 |"


def test_a_contestant_is_compared_with_ours_round_by_round():
    def answer(cpu):
        return {"stages": {"collect": [0.0, cpu], "write": [0.0, 0.5]}, "peak": 3e6, "disk": 2e6, "shown": 7}

    row = collector._contest_row("peer", [answer(2.0), answer(9.0), answer(6.0)], [answer(1.0), answer(3.0), answer(2.0)])
    assert row == "| peer | 6.00 (0.00) | 3.0 | 0.50 (0.00) |  | 3 | 2 | 7 |"
