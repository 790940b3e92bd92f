"""The activation stream: which tokens it yields, how it shuffles them, and that it resumes exactly.

The language model has one embedding per token, and every token occurs once in the text, so that a row of a batch
identifies its token, and hence its document and position.
"""

import itertools
import json
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
import transformers
from small import require_enough_tokens, tiny, write_text

from saesweep.data.harvest import LanguageModelSource, harvest
from saesweep.data.micro_batches import by_length, micro_batches, positions, tokens_wanted
from saesweep.data.normalisation import Statistics
from saesweep.data.stream import ActivationStream, Position
from saesweep.data.synthetic import SyntheticSource
from saesweep.data.text import PADDING, Corpus
from saesweep.data.text_length import tokens_needed
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.lm.models import LanguageModel
from saesweep.lm.tokenizer import Tokenizer

EMBEDDING = HookPoint("model.embed_tokens", "output")
NORMED = HookPoint("model.layers.0.input_layernorm", "output")
VOCABULARY, SPECIAL = 6000, frozenset(range(3))  # 0 padding, 1 BOS, 2 EOS
BATCH, CONTEXT = 64, 32


def numbers(texts):
    return [[int(word) for word in text.split()] for text in texts]


def traced_lm(large=()):
    """large: tokens whose embedding is multiplied by 100."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    module.model.embed_tokens.weight.normal_()[list(large)] *= 100
    return LanguageModel(module, Tokenizer(numbers, 1, SPECIAL, VOCABULARY))


def corpus(folder, lengths, stream_seed=0, repeat=False, end=" 2"):
    """Documents of these lengths; their tokens are numbered consecutively from 3, and each ends in a special token."""
    first, texts = 3, []
    for length in lengths:
        texts.append(" ".join(map(str, range(first, first + length))) + end)
        first += length
    assert first <= VOCABULARY
    file = folder / "numbers.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = {
        "name": "files",
        "kind": "files",
        "glob": str(file),
        "field": "text",
        "held_out": 0.02,
        "repeat": repeat,
    }
    return Corpus(settings, stream_seed)


def stream(lm, corpus, steps, points=(EMBEDDING,), window=1024, pool=16, stream_seed=0, max_norm=None, batch=BATCH):
    source = LanguageModelSource(
        lm, corpus, points, context=CONTEXT, window=window, forward_tokens=4 * CONTEXT,
        documents_per_pool=pool, stream_seed=stream_seed,
    )
    return ActivationStream(
        source, steps=steps, batch_tokens=batch, stream_seed=stream_seed, center=True, max_norm=max_norm, statistics=512
    )


def tokens_of(stream, lm, batches):
    """The token of each row."""
    table = stream.statistics[EMBEDDING].apply(lm.module.model.embed_tokens.weight)
    known = {row.numpy().tobytes(): token for token, row in enumerate(table)}
    return [[known[row.numpy().tobytes()] for row in batch[EMBEDDING]] for batch in batches]


LENGTHS = [70 + 13 * (i % 7) for i in range(50)]  # 5,350 tokens
DOCUMENT = [number for number, length in enumerate(LENGTHS) for _ in range(length)]  # of token 3, 4, ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def lm():
    return traced_lm()


@pytest.fixture(scope="module")
def token_batches(folder, lm):
    """The tokens of each of 60 batches: 72% of the text, in 4 windows of 4 pools."""
    s = stream(lm, corpus(folder, LENGTHS), 60)
    batches = tokens_of(s, lm, s)
    assert s.position.window >= 3 and s.source.pool_number >= 2
    return batches


def test_special_tokens_bos_and_padding_never_reach_a_batch(token_batches):
    assert all(len(batch) == BATCH for batch in token_batches)
    assert not SPECIAL & {token for batch in token_batches for token in batch}


def test_every_token_is_yielded_at_most_once(token_batches):
    counts = Counter(token for batch in token_batches for token in batch)
    assert sum(counts.values()) == 60 * BATCH and max(counts.values()) == 1


def test_batches_are_shuffled_over_documents_and_positions(token_batches):
    for batch in token_batches[:50]:  # the last windows are smaller
        documents = Counter(DOCUMENT[token - 3] for token in batch)
        assert max(documents.values()) <= 0.3 * BATCH and len(documents) >= 9  # of 16 in a pool
    steps = torch.tensor([[b - a for a, b in pairwise(batch)] for batch in token_batches])
    assert (steps.abs() <= 5).double().mean() < 0.05  # neighbours in a batch are not neighbours in the text


def test_the_stream_seed_determines_the_batches(folder, lm):
    def run(seed):
        return [batch[EMBEDDING] for batch in stream(lm, corpus(folder, LENGTHS, seed), 20, stream_seed=seed)]

    assert all(map(torch.equal, run(0), run(0)))
    assert not any(map(torch.equal, run(0), run(1)))


def test_the_stream_seed_determines_the_synthetic_tokens():
    point = HookPoint("synthetic", "output")
    shape = {"features": 20, "d_in": 8, "l0": 2.0, "spread": 20.0, "noise": 0.1, "seed": 0, "window": 64}
    a, b = (SyntheticSource(point, **shape, stream_seed=seed) for seed in (0, 1))
    assert torch.equal(a.dictionary, b.dictionary)
    x, y = a.window(64)[point], b.window(64)[point]
    assert not torch.equal(x.sort(0).values, y.sort(0).values)


@pytest.mark.slow
def test_the_batches_of_a_hook_point_do_not_depend_on_the_other_hook_points(tmp_path):
    text = {
        "name": "files",
        "kind": "files",
        "glob": write_text(tmp_path),
        "field": "text",
        "held_out": 0.1,
        "repeat": False,
    }
    points = [HookPoint("model.layers.1", "output"), HookPoint("model.layers.0.self_attn.o_proj", "input")]

    def run(points):
        return list(stream(tiny(), Corpus(text, 0), 20, points, max_norm=3.0))

    together = run(points)
    for point in points:
        assert all(torch.equal(a[point], b[point]) for a, b in zip(run([point]), together, strict=True))


def test_sinks_are_counted_and_dropped_at_their_hook_point_only(folder):
    large = range(5, 5000, 20)  # a twentieth of the tokens; large after the embedding, not after the norm
    lm = traced_lm(large)
    s = stream(lm, corpus(folder, LENGTHS), 40, (EMBEDDING, NORMED), max_norm=8.0)
    batches = list(s)
    seen = {token for batch in tokens_of(s, lm, batches) for token in batch}
    kept = sum(len(batch[EMBEDDING]) for batch in batches)
    assert not seen & set(large)
    assert 40 * BATCH * 0.9 < kept < 40 * BATCH
    assert all(len(batch[NORMED]) == BATCH for batch in batches)
    assert s.statistics[EMBEDDING].sinks == pytest.approx(0.05, abs=0.02) and s.statistics[NORMED].sinks == 0
    everything = stream(lm, corpus(folder, LENGTHS), 40, (EMBEDDING, NORMED), max_norm=None)
    assert all(len(batch[EMBEDDING]) == BATCH for batch in everything)


@pytest.mark.parametrize("center", [True, False])
def test_normalised_activations_have_mean_square_norm_1_and_are_inverted_exactly(center):
    x = 3.0 + torch.randn(4096, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 9, 12)
    x[::100] *= 1000
    statistics = Statistics.of(x, center=center, max_norm=8.0)
    ordinary = statistics.ordinary(x)
    assert torch.equal(~ordinary, torch.arange(4096) % 100 == 0) and statistics.sinks == pytest.approx(41 / 4096)
    y = statistics.apply(x[ordinary])
    assert float(y.square().sum(1).mean()) == pytest.approx(1, abs=1e-4)
    assert (float(y.mean(0).norm()) < 1e-4) is center
    assert bool(statistics.mean.any()) is center
    torch.testing.assert_close(statistics.undo(statistics.apply(x)), x, rtol=1e-5, atol=1e-4)


def test_statistics_are_computed_on_the_first_tokens_and_stay_fixed(folder, lm):
    s = stream(lm, corpus(folder, LENGTHS), 60)
    before = s.statistics[EMBEDDING]
    raw = torch.cat([before.undo(batch[EMBEDDING]) for batch in s])[:512]
    assert s.statistics[EMBEDDING] is before
    torch.testing.assert_close(raw.mean(0), before.mean, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_stream_resumes_bitwise_from_any_step(folder, lm):
    """Across the boundaries of windows and pools, with no row lost or repeated."""

    def new():
        return stream(lm, corpus(folder, LENGTHS), 40, (EMBEDDING, NORMED), window=320, pool=5)

    s = new()
    positions, batches = [s.position], []
    for batch in s:
        batches.append(batch)
        positions.append(s.position)
        assert [s.position_after(step) for step in (len(batches) - 1, len(batches))] == positions[-2:]
    assert s.position.window >= 5 and s.source.pool_number >= 5
    for stop in range(0, 41, 3):
        again = new()
        again.resume(positions[stop], s.statistics)
        assert len(again) == 40 - stop
        rest = list(again)
        assert len(rest) == 40 - stop and len(again) == 0
        for found, wanted in zip(rest, batches[stop:], strict=True):
            assert torch.equal(found[EMBEDDING], wanted[EMBEDDING]), (stop, positions[stop])
            assert torch.equal(found[NORMED], wanted[NORMED])


def test_position_and_statistics_survive_a_round_trip_through_json_and_tensors(folder, lm):
    s = stream(lm, corpus(folder, LENGTHS), 40, window=320, max_norm=8.0)
    next(iter(s))
    position, statistics = s.position, s.statistics[EMBEDDING]
    list(s)
    assert position.step == 1 and Position(**json.loads(json.dumps(position._asdict()))) == position
    tensors, numbers = statistics.saved()
    again = Statistics.restored(tensors, json.loads(json.dumps(numbers)))
    assert again == statistics and len(json.dumps(numbers)) < 1000


@pytest.mark.parametrize("length", [4, 31, 40])  # blocks of 32 positions
def test_a_window_holds_the_requested_tokens_for_any_document_length(folder, lm, length):
    s, sizes = stream(lm, corpus(folder, [length] * (5600 // length)), 30, pool=64), []
    read = s.source.window
    s.source.window = lambda rows: _recorded(read(rows), sizes)
    batches = tokens_of(s, lm, s)
    assert [len(set(batch)) for batch in batches] == [BATCH] * 30
    assert 32 * 31 <= sizes[0] < 32 * 31 + CONTEXT and len(sizes) == 2


def test_dropping_columns_of_padding_from_a_micro_batch_changes_no_activation(folder, lm):
    draw = torch.Generator().manual_seed(0)
    lengths = [3, 5, 2, 9, CONTEXT, 7, 1, 4, 4, 4]
    tokens = torch.full((len(lengths), CONTEXT), PADDING)
    for block, length in zip(tokens, lengths, strict=True):
        block[:length] = torch.randint(3, VOCABULARY, (length,), generator=draw)
    parts = micro_batches(tokens, 64)
    assert [tuple(part.shape) for part in parts] == [(4, 9), (2, CONTEXT), (4, 4)]
    assert torch.equal(torch.cat([part[part >= 0] for part in parts]), tokens[tokens >= 0])
    points = [HookPoint("model.layers.0.self_attn.o_proj", "output")]
    cut = torch.cat([harvest(lm, points, part)[points[0]] for part in parts])
    torch.testing.assert_close(cut, harvest(lm, points, tokens)[points[0]])
    full = torch.full((10, CONTEXT), 5)
    assert [tuple(part.shape) for part in micro_batches(full, 4 * CONTEXT + 1)] == [(4, CONTEXT), (4, CONTEXT), (2, CONTEXT)]
    assert [tuple(part.shape) for part in micro_batches(full[:2], 1)] == [(1, CONTEXT), (1, CONTEXT)]


def blocks_of(lengths, context=CONTEXT):
    """Random tokens, padded."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, VOCABULARY, (len(lengths), context), generator=draw)
    return tokens.masked_fill(torch.arange(context) >= torch.tensor(lengths)[:, None], PADDING)


def test_blocks_are_read_longest_first_where_that_leaves_less_padding():
    lengths = [3, CONTEXT, 5, CONTEXT, 2, 9, 7, CONTEXT]
    tokens = blocks_of(lengths)
    order = by_length(tokens, 64)
    assert order.tolist() == [1, 3, 7, 5, 6, 2, 0, 4]
    assert [tuple(part.shape) for part in micro_batches(tokens[order], 64)] == [(2, 32), (2, 32), (4, 7)]
    assert positions(tokens, 64) == 2 * 64 + 3 * 9 + 32 and positions(tokens[order], 64) == 2 * 64 + 28


def test_blocks_keep_their_order_where_another_would_save_little():
    short = [CONTEXT] * 30 + [CONTEXT - 8, CONTEXT] * 2
    assert by_length(blocks_of(short), 64).tolist() == list(range(34))  # 2 micro-batches of 17 would be 8 columns shorter


def test_harvesting_by_length_changes_no_row_and_not_their_order(folder, lm):
    lengths = [3, 5, CONTEXT, 9, 7, CONTEXT, 1, 4, 4, CONTEXT] * 3
    tokens, points = blocks_of(lengths), [HookPoint("model.layers.0.self_attn.o_proj", "output"), EMBEDDING]
    source = stream(lm, corpus(folder, LENGTHS), 1, points=points).source
    found, shapes = {}, []
    with lm.module.register_forward_pre_hook(lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True):
        found = source.read(tokens)
    order = by_length(tokens, 128)
    assert sum(shape.numel() for shape in shapes) == positions(tokens[order], 128) < 0.6 * positions(tokens, 128)
    wanted = harvest(lm, points, tokens)
    assert torch.equal(found[EMBEDDING], wanted[EMBEDDING])
    torch.testing.assert_close(found[points[0]], wanted[points[0]])


@pytest.mark.slow
def test_a_stream_of_short_documents_resumes_bitwise_from_any_step(folder, lm):
    def new():
        return stream(lm, corpus(folder, [1 + i % 7 for i in range(1000)]), 40, window=320, pool=50)

    s = new()
    positions, batches = [s.position], []
    for batch in s:
        batches.append(batch)
        positions.append(s.position)
    assert s.position.window >= 5 and s.source.pool_number >= 5
    for stop in range(0, 41, 7):
        again = new()
        again.resume(positions[stop], s.statistics)
        for found, wanted in zip(again, batches[stop:], strict=True):
            assert torch.equal(found[EMBEDDING], wanted[EMBEDDING])


def test_an_error_while_reading_a_text_is_raised_and_not_taken_for_its_end(folder, lm):
    text = corpus(folder, LENGTHS)

    def broken(split, start=0):
        yield from itertools.islice(text.one_pass(split), 20)
        raise UsageError("broke off")

    text.documents = broken
    with pytest.raises(UsageError, match="broke off"):
        list(stream(lm, text, 60))


def test_a_window_smaller_than_a_batch_is_enlarged_to_one(folder, lm):
    s = stream(lm, corpus(folder, LENGTHS), 4, window=100, batch=512)
    counts = Counter(token for batch in tokens_of(s, lm, s) for token in batch)
    assert sum(counts.values()) == 4 * 512 and max(counts.values()) == 1


def test_no_window_is_larger_than_the_remaining_steps_need(folder, lm):
    text = corpus(folder, [31] * 100, end="")  # blocks without padding
    for steps, window, windows in ((5, 4096, 1), (20, 1024, 2)):
        s, sizes = stream(lm, text, steps, window=window), []
        read = s.source.window
        s.source.window = lambda rows, read=read, sizes=sizes: _recorded(read(rows), sizes)
        list(s)
        assert len(sizes) == windows
        assert steps * BATCH <= sum(sizes) < steps * BATCH * 1.03 + windows * CONTEXT + (windows - 1) * BATCH


def _recorded(rows, sizes):
    sizes.append(len(rows[EMBEDDING]))
    return rows


def test_the_progress_of_a_harvest_is_reported(folder, lm):
    s, lines = stream(lm, corpus(folder, [31] * 100, end=""), 12), []
    s.source.line = lines.append
    list(s)
    assert lines[:2] == ["reading the text: 0 of 768 tokens", "reading the text: 124 of 768 tokens"] and len(lines) > 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_harvested_rows_keep_the_language_models_dtype_and_batches_are_fp32(folder, dtype):
    lm = traced_lm()
    lm.module.to(dtype)
    s = stream(lm, corpus(folder, LENGTHS), 2)
    batch = next(iter(s))[EMBEDDING]
    assert s._rows[EMBEDDING].dtype == dtype and batch.dtype == torch.float32


@pytest.mark.parametrize("forward_tokens, blocks", [(4 * CONTEXT + 1, 4), (CONTEXT, 1), (1, 1)])
def test_a_micro_batch_is_whole_blocks_of_at_most_forward_tokens(folder, lm, forward_tokens, blocks):
    s, shapes = stream(lm, corpus(folder, [31] * 100, end=""), 5), []
    s.source.forward_tokens = forward_tokens
    with lm.module.register_forward_pre_hook(lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True):
        list(s)
    assert len(shapes) > 1 and {tuple(shape) for shape in shapes[:-1]} == {(blocks, CONTEXT)} and shapes[-1][0] <= blocks


@pytest.mark.parametrize("pool", [7, 16, 1000])
def test_the_end_of_a_text_is_an_error_that_names_the_fix(folder, lm, pool):
    s = stream(lm, corpus(folder, LENGTHS), 1000, pool=pool)
    taken = []
    with pytest.raises(UsageError, match=r"text=files was read to its end.*lower tokens.*text\.repeat=true"):
        taken.extend(s)
    assert len(taken) * BATCH > 0.9 * sum(LENGTHS)


def test_a_text_with_just_enough_tokens_suffices(folder, lm):
    """A window requests a few tokens more than it needs; the text need not have those."""
    text = corpus(folder, [31] * 140, end="")
    steps = 137 * 31 // BATCH  # three documents are held out
    assert len(list(stream(lm, text, steps, window=100_000))) == steps


@pytest.mark.parametrize("window, batch", [(1024, 64), (256, 200), (100, 64), (100_000, 500), (512, 1)])
@pytest.mark.parametrize("length", [10, 31, 40])  # blocks of which two thirds are padding, none, a third
def test_the_tokens_that_the_error_of_a_short_text_proposes_suffice(folder, lm, window, batch, length):
    text = corpus(folder, [length] * (5600 // length), end="")
    settings = {"tokens": 5600, "batch_tokens": batch, "context": CONTEXT, "activations": {"window": window}}
    settings |= {"evaluation": {"tokens": 9, "calibration_tokens": 9}, "stream_seed": 0}
    with pytest.raises(UsageError, match=r"set tokens=\d+ at most") as refused:
        require_enough_tokens(text, lm.tokenizer, settings)
    most = int(re.search(r"set tokens=(\d+)", str(refused.value))[1])
    require_enough_tokens(text, lm.tokenizer, settings | {"tokens": most})
    steps = most // batch
    assert most > 0 and len(list(stream(lm, text, steps, window=window, batch=batch))) == steps


def test_a_repeated_text_is_read_again_in_another_order(folder, lm):
    s = stream(lm, corpus(folder, LENGTHS, repeat=True), 160)
    counts = Counter(token for batch in tokens_of(s, lm, s) for token in batch)
    assert max(counts.values()) in (2, 3) and min(counts.values()) >= 1
    assert len(counts) > 0.9 * sum(LENGTHS)


@pytest.mark.parametrize(
    ("mean", "center", "large", "max_norm", "expected"),
    [
        (9.0, False, False, 8.0, "activations.center=true"),
        (0.0, True, True, None, "activations.max_norm=8"),
        (9.0, True, False, 8.0, "trained on (x - mean) / "),
        (0.0, False, False, 8.0, "trained on x / "),
    ],
)
def test_the_report_of_a_hook_point_recommends_settings(mean, center, large, max_norm, expected):
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)) + mean
    if large:
        x[0] *= 1000
    report = Statistics.of(x, center=center, max_norm=max_norm).report(EMBEDDING)
    assert expected in report and "model.embed_tokens.output: |mean|" in report


@pytest.mark.parametrize("dtype, words", [
    (torch.float16, ["model.dtype=float16: ", "write model.dtype=bfloat16 or float32"]),
    (torch.float32, ["choose another site"]),
])
def test_activations_that_are_not_finite_are_refused_with_hook_point_and_count(dtype, words):
    x = torch.randn(100, 4).to(dtype)
    x[3, 1], x[7] = float("inf"), float("nan")
    with pytest.raises(UsageError) as error:
        Statistics.of(x, center=True, max_norm=8.0, point=EMBEDDING)
    for part in [*words, f"the activations at {EMBEDDING} are not finite on 2 of 100 tokens"]:
        assert part in str(error.value)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("x", [torch.zeros(50, 4), torch.full((50, 4), 0.1), torch.randn(1, 4), torch.ones(50, 1)])
def test_constant_activations_are_refused(x, center):
    with pytest.raises(UsageError, match=r"the activations at .* do not vary over \d+ tokens \(constant\)"):
        Statistics.of(x, center=center, max_norm=None, point=EMBEDDING)


def test_a_max_norm_that_makes_every_token_a_sink_is_refused():
    with pytest.raises(UsageError, match=r"activations\.max_norm=0\.01: all 50 tokens .* are sinks"):
        Statistics.of(torch.nn.functional.normalize(torch.randn(50, 4)), center=True, max_norm=0.01, point=EMBEDDING)


@pytest.mark.parametrize("context, window, batch", [(16, 64, 7), (16, 64, 200), (32, 32, 31), (8, 1000, 3)])
def test_the_closed_form_of_tokens_needed_equals_a_loop_over_windows(lm, context, window, batch):
    def one_by_one(steps):
        windows, left = 0, steps
        while left > 0:
            windows += 1
            left -= max(1, tokens_wanted(left * batch, context, window, lm.tokenizer) // batch)
        return steps * batch + windows * (batch - 1)

    for steps in (*range(1, 60), 1000, 1001):
        assert tokens_needed(steps, batch, context, window, lm.tokenizer) == one_by_one(steps)
    assert tokens_needed(10**17, batch, context, window, lm.tokenizer) > 10**17


def test_statistics_work_in_one_dimension():
    assert Statistics.of(torch.randn(50, 1), center=True, max_norm=8.0).scale > 0
