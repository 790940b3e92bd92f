"""`activations.forward_tokens=auto`: how many tokens the language model takes at once where that is measured."""
import pytest
import torch
from small import RESOURCES, clear_text_caches, job, tiny, trained, write_text
from test_activations import CONTEXT, EMBEDDING

from saesweep.data import forward_size, harvest
from saesweep.data.resources import Resources
from saesweep.runtime import distributed

RISING = [1.0, 1.9, 3.0, 4.0, 4.1, 4.15, 4.1, 4.0]  # tokens a second at 1, 2, 4, 8 ... blocks: level from 8 on


@pytest.fixture
def found(monkeypatch):
    """What is found on a machine that reads at these rates, and at which sizes it was looked for."""

    def of(rates, most=10**9, fits=10**9, error=MemoryError):
        asked = []

        def read(lm, points, tokens):
            asked.append(len(tokens))
            if len(tokens) > fits:
                raise error
            return {EMBEDDING: torch.zeros(tokens.numel(), 1)}

        def quickest(call):
            rows = call()
            size = len(rows[EMBEDDING])
            return size / rates[(size // CONTEXT).bit_length() - 1], rows

        monkeypatch.setattr(forward_size, "harvest", read)
        monkeypatch.setattr(forward_size, "quickest", quickest)
        return forward_size.fastest_forward(tiny(), [EMBEDDING], CONTEXT, most) // CONTEXT, asked

    return of


def test_it_is_the_smallest_that_is_about_the_fastest_and_what_comes_far_behind_it_is_not_tried(found):
    assert found(RISING) == (8, [1, 2, 4, 8, 16, 32])


def test_one_slow_measurement_does_not_end_the_search(found):
    assert found([1.0, 1.9, 1.5, 3.0, 3.0, 3.0]) == (8, [1, 2, 4, 8, 16, 32])


def test_it_is_no_more_than_a_window_and_no_less_than_a_block(found):
    assert found(RISING, most=4 * CONTEXT + 1) == (4, [1, 2, 4])
    assert found(RISING, most=1) == (1, [1])


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_where_memory_ends_it_is_at_most_half_of_what_fits(found, error):
    assert found(RISING, fits=4, error=error) == (2, [1, 2, 4, 8])
    assert found(RISING, fits=1, error=error) == (1, [1, 2])
    with pytest.raises(error):
        found(RISING, fits=0, error=error)


def test_of_several_ranks_none_is_left_without_a_micro_batch_and_all_take_the_same(monkeypatch):
    asked = []
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(distributed, "all_gather", lambda mine: [mine, 96, 512])
    monkeypatch.setattr(forward_size, "fastest_forward", lambda lm, points, context, most: asked.append(most) or 256)
    settings, fresh = job("no.jsonl", "activations.forward_tokens=auto"), Resources()
    monkeypatch.setattr(fresh, "language_model", lambda job: tiny())
    assert fresh.forward_tokens(settings, [EMBEDDING]) == 96 and asked == [256]


def test_any_other_error_is_raised(found):
    with pytest.raises(ZeroDivisionError):
        found(RISING, fits=2, error=ZeroDivisionError)


def test_a_training_that_was_stopped_goes_on_with_what_was_measured_when_it_began(tmp_path, monkeypatch):
    jobs = [job(write_text(tmp_path), "arch=topk", "activations.forward_tokens=auto", "save_tokens=640")]
    sizes = []

    def measured(tokens):
        monkeypatch.setattr(RESOURCES, "_fastest", lambda *_: tokens)
        clear_text_caches()
        unmeasured = harvest.harvest
        monkeypatch.setattr(harvest, "harvest", lambda lm, points, x: (sizes.append(x.numel()), unmeasured(lm, points, x))[1])

    def stops(module):
        if module.tokens == 1280:
            raise RuntimeError("stop")

    measured(96)
    with pytest.raises(RuntimeError, match="stop"):
        trained(jobs, tmp_path, progress=stops)
    measured(320)
    module = trained(jobs, tmp_path)
    assert module.tokens == 3200 and max(sizes) == 96
