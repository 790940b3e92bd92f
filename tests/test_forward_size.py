"""`activations.forward_tokens=auto`: the measured number of tokens per forward pass of the language model."""
import pytest
import torch
from small import RESOURCES, clear_text_caches, job, tiny, trained, write_text
from test_activations import CONTEXT, EMBEDDING

from saesweep.data import forward_size, harvest
from saesweep.data.resources import Resources
from saesweep.runtime import distributed

RISING = [1.0, 1.9, 3.0, 4.0, 4.1, 4.15, 4.1, 4.0]  # tokens/s at 1, 2, 4, 8 ... blocks; constant from 8 on


@pytest.fixture
def found(monkeypatch):
    """The size that is found on a machine with these rates, and the sizes that are tried."""

    def of(rates, most=10**9, fits=10**9, error=MemoryError):
        tried = []

        def read(lm, points, tokens):
            tried.append(len(tokens))
            if len(tokens) > fits:
                raise error
            return {EMBEDDING: torch.zeros(tokens.numel(), 1)}

        def quickest(call):
            rows = call()
            size = len(rows[EMBEDDING])
            return size / rates[(size // CONTEXT).bit_length() - 1], rows

        monkeypatch.setattr(forward_size, "harvest", read)
        monkeypatch.setattr(forward_size, "quickest", quickest)
        return forward_size.fastest_forward(tiny(), [EMBEDDING], CONTEXT, most) // CONTEXT, tried

    return of


def test_the_smallest_of_the_fastest_sizes_is_chosen(found):
    assert found(RISING) == (8, [1, 2, 4, 8, 16, 32])


def test_one_slow_measurement_does_not_end_the_search(found):
    assert found([1.0, 1.9, 1.5, 3.0, 3.0, 3.0]) == (8, [1, 2, 4, 8, 16, 32])


def test_the_size_is_at_most_a_window_and_at_least_a_block(found):
    assert found(RISING, most=4 * CONTEXT + 1) == (4, [1, 2, 4])
    assert found(RISING, most=1) == (1, [1])


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_the_size_is_at_most_half_of_what_fits_into_memory(found, error):
    assert found(RISING, fits=4, error=error) == (2, [1, 2, 4, 8])
    assert found(RISING, fits=1, error=error) == (1, [1, 2])
    with pytest.raises(error):
        found(RISING, fits=0, error=error)


def test_all_ranks_take_the_same_size_and_each_has_a_micro_batch(monkeypatch):
    limits = []
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(distributed, "all_gather", lambda mine: [mine, 96, 512])
    monkeypatch.setattr(forward_size, "fastest_forward", lambda lm, points, context, most: limits.append(most) or 256)
    settings, fresh = job("no.jsonl", "activations.forward_tokens=auto"), Resources()
    monkeypatch.setattr(fresh, "language_model", lambda job: tiny())
    assert fresh.forward_tokens(settings, [EMBEDDING]) == 96 and limits == [256]


def test_other_errors_are_raised(found):
    with pytest.raises(ZeroDivisionError):
        found(RISING, fits=2, error=ZeroDivisionError)


@pytest.mark.slow
def test_a_resumed_training_keeps_the_size_that_was_measured_at_its_start(tmp_path, monkeypatch):
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
