"""The disk cache of activations: it returns what the language model computes, bit for bit, and nothing is harvested twice."""
import errno
import json
import os
import random
from functools import cache as once
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import RESOURCES, clear_text_caches, inputs_of, job, tiny, train_group, write_text
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from saesweep.data.disk_cache import CachedSource
from saesweep.errors import UsageError
from saesweep.lm import models
from saesweep.lm.hooks import HookPoint
from saesweep.sweep.inputs import point_of

MLP = HookPoint("model.layers.0.post_feedforward_layernorm", "output")
SIZES = (1000, 1000, 1000, 300)  # requested rows: windows of 1,024 tokens, and a smaller one at the end


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def settings(text, folder, *more):
    return job(text, "cache=disk", f"cache.folder={folder}", *more)


class CountingFactory:
    """Wraps the function that loads the language model and makes the activation source, and counts its calls."""

    def __init__(self, inner):
        self.inner, self.calls = once(inner), 0

    def __call__(self):
        self.calls += 1
        return self.inner()


def source(text, folder, *points, more=()):
    found = inputs_of(settings(text, folder, *more), points or [point_of(job(text))]).source
    assert isinstance(found, CachedSource)
    found.make = CountingFactory(found.make)
    return found


def windows(source, sizes=SIZES):
    return [source.window(rows) for rows in sizes]


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for point in other:
            assert one[point].dtype == other[point].dtype and torch.equal(one[point], other[point])


@pytest.mark.slow
def test_cached_windows_equal_harvested_ones_and_none_is_harvested_twice(text, tmp_path):
    points = [point_of(job(text)), MLP]
    wanted = windows(inputs_of(job(text), points).source)
    first, second = source(text, tmp_path, *points), source(text, tmp_path, *points)
    assert_same(windows(first), wanted)
    assert first.make.calls == len(SIZES)
    assert_same(windows(second), wanted)
    assert second.make.calls == 0 and second.state_dict() == first.state_dict()


@pytest.mark.slow
def test_a_longer_run_extends_the_cache_of_a_shorter_one(text, tmp_path):
    wanted = windows(inputs_of(job(text), [point_of(job(text))]).source, (1000, 1000, 1000))
    windows(source(text, tmp_path), (1000, 300))
    longer = source(text, tmp_path)
    assert_same(windows(longer, (1000, 1000, 1000)), wanted)
    assert longer.make.calls == 2  # all but the first
    shorter = source(text, tmp_path)
    assert_same(windows(shorter, (1000, 300)), windows(inputs_of(job(text), [point_of(job(text))]).source, (1000, 300)))
    assert shorter.make.calls == 0


@pytest.mark.slow
def test_the_source_can_return_to_any_position(text, tmp_path):
    one = source(text, tmp_path)
    before = windows(one, (1000, 1000))
    state = one.state_dict()
    after = windows(one, (1000,))
    other = source(text, tmp_path)
    other.load_state_dict(state)
    assert_same(windows(other, (1000,)), after)
    assert other.make.calls == 0 and len(before) == 2


@pytest.mark.slow
def test_another_hook_point_is_added_to_an_existing_cache(text, tmp_path):
    resid = point_of(job(text))
    windows(source(text, tmp_path, resid))
    written = {file: os.stat(file).st_mtime_ns for file in tmp_path.rglob("*.bin")}
    both = source(text, tmp_path, MLP, resid)
    assert_same(windows(both), windows(inputs_of(job(text), [MLP, resid]).source))
    assert all(os.stat(file).st_mtime_ns == at for file, at in written.items())
    assert len(list(tmp_path.rglob("*.bin"))) == 2 * len(written)
    again = source(text, tmp_path, MLP)
    windows(again)
    assert again.make.calls == 0


@pytest.mark.slow
@pytest.mark.parametrize("more", [("context=16",), ("stream_seed=1",), ("model.bos=false",), ("text.held_out=0.3",)])
def test_settings_of_the_stream_determine_the_folder(text, tmp_path, more):
    folder = source(text, tmp_path).folder
    assert source(text, tmp_path, more=more).folder != folder
    assert source(text, tmp_path, more=("width=64", "seed=3", "site=mlp", "tokens=640")).folder == folder


def test_another_text_of_the_same_name_has_another_folder(tmp_path):
    text = write_text(tmp_path, seed=0)
    first = source(text, tmp_path / "cache").folder
    write_text(tmp_path, seed=1)
    clear_text_caches()
    assert source(text, tmp_path / "cache").folder != first


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_model_edited_in_place_has_another_identity(tmp_path, name):
    model = {"source": {"hub": str(tmp_path), "revision": "main"}}
    for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / file).write_bytes(bytes(3 << 20))
    before = models.weights_identity(model)
    stat = (tmp_path / name).stat()
    with (tmp_path / name).open("r+b") as file:
        file.seek(3 << 19)  # in the middle
        file.write(b"edited")
    os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = models.weights_identity(model)
    part = {"model.safetensors": "weights", "config.json": "config"}.get(name, "tokenizer")
    assert [key for key in before if before[key] != after[key]] == [part]
    (tmp_path / "generation_config.json").write_bytes(b"{}")
    assert models.weights_identity(model) == after


@pytest.mark.slow
def test_an_edited_model_is_read_again_in_the_same_process_and_has_another_folder(text, tmp_path):
    module, folder = tiny().module, tmp_path / "model"
    module.save_pretrained(folder)
    letters = Tokenizer(WordLevel({"<s>": 0, "a": 1, "[UNK]": 2}, unk_token="[UNK]"))
    letters.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<s>").save_pretrained(folder)
    more = (f"+model.source.hub={folder}", "+model.source.revision=main", "~model.source.random", "text.repeat=true",
            "evaluation.tokens=64", "evaluation.lm_tokens=0", "evaluation.calibration_tokens=64")
    first = source(text, tmp_path / "cache", more=more)
    before = windows(first, (1000,))
    file = folder / "model.safetensors"
    weights = {key: -value if "embed_tokens" in key else value for key, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    second = source(text, tmp_path / "cache", more=more)
    assert second.folder != first.folder
    after = windows(second, (1000,))
    assert all(not torch.equal(before[0][point], after[0][point]) for point in after[0])


@pytest.mark.slow
def test_short_documents_are_cached_like_long_ones(tmp_path):
    file = tmp_path / "short.jsonl"
    words = random.Random(0).choices("etaoinshr", k=20_000)
    file.write_text("".join(json.dumps({"text": "".join(words[i : i + 1 + i % 9])}) + "\n" for i in range(0, 20_000, 3)))
    wanted = windows(inputs_of(job(str(file)), [point_of(job(str(file)))]).source)
    first, second = source(str(file), tmp_path), source(str(file), tmp_path)
    assert_same(windows(first), wanted)
    assert_same(windows(second), wanted)
    assert second.make.calls == 0
    assert all(992 <= len(x) < 992 + 32 for window in wanted[:2] for x in window.values())  # 32 blocks without padding


@pytest.mark.slow
def test_a_window_whose_writing_was_interrupted_is_harvested_again(text, tmp_path):
    one = source(text, tmp_path)
    wanted = windows(one)
    (one.folder / "000000-000000.json").unlink()  # it is written last
    again = source(text, tmp_path)
    assert_same(windows(again), wanted)
    assert again.make.calls == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-4], lambda content: b"x" + content[1:], None])
def test_a_damaged_file_is_refused_by_name(text, tmp_path, damage):
    one = source(text, tmp_path)
    windows(one, (1000,))
    (file,) = one.folder.glob("*.bin")
    file.unlink() if damage is None else file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UsageError, match=rf"cache=disk: .*{file.name} is damaged or missing; delete"):
        windows(source(text, tmp_path), (1000,))


def test_a_full_disk_is_reported_and_leaves_no_partial_file(text, tmp_path, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one = source(text, tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"cache=disk: cannot write .*\.bin: No space left on device; make room"):
        windows(one, (1000,))
    assert list(one.folder.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda run: run[:20], lambda run: b"", lambda run: b"[]", lambda run: b"{}",
                                    lambda run: b'{"points": {"a": 3}, "rows": []}', lambda run: run[:30] + b"\xff"])
def test_a_damaged_index_of_a_window_is_refused_by_name(text, tmp_path, damage):
    one = source(text, tmp_path)
    windows(one, (1000,))
    file = one.folder / "000000-000000.json"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UsageError, match=rf"cache=disk: .*{file.name} is damaged or missing; delete {one.folder}, it is made"):
        windows(source(text, tmp_path), (1000,))


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_cache_folder_that_is_a_file_is_refused(text, tmp_path, below):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / below
    with pytest.raises(UsageError, match=rf"cache\.folder={folder}: {tmp_path / 'file'} is not a folder"):
        source(text, folder)


def test_a_cache_folder_that_cannot_be_written_to_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match=rf"cache\.folder={tmp_path / 'new'}: {tmp_path} cannot be written to"):
        source(text, tmp_path / "new")


def test_nothing_is_written_before_the_first_window(text, tmp_path):
    source(text, tmp_path / "new").holds_next()
    assert not (tmp_path / "new").exists()


def test_the_header_records_what_determines_the_activations(text, tmp_path):
    one = source(text, tmp_path)
    windows(one, (1000,))
    header = json.loads((one.folder / "header.json").read_text())
    assert header["model"]["dtype"] == "torch.float32" and header["text"]["glob"] == text and header["context"] == 32


@pytest.mark.slow
def test_a_second_training_from_the_cache_is_bitwise_the_same_without_a_language_model(
    text, tmp_path, monkeypatch
):
    archs = ("jumprelu", "topk")
    without = ("evaluation.lm_tokens=0", "tokens=1280")

    def weights(name, *more):
        folders = [tmp_path / name / arch for arch in archs]
        for folder in folders:
            folder.mkdir(parents=True)
        results = train_group([job(text, f"arch={arch}", *without, *more) for arch in archs], folders)
        assert all(r["delta_loss"] is None and 0 < r["fvu"] < 1.2 for r in results)
        return [load_file(folder / "sae/sae_weights.safetensors") for folder in folders], results

    disk = ("cache=disk", f"cache.folder={tmp_path / 'cache'}")
    plain, first = weights("plain"), weights("first", *disk)
    RESOURCES.release_model()
    monkeypatch.setattr(models, "_module", lambda *_: pytest.fail("weights were loaded"))
    second = weights("second", *disk)
    assert plain[1] == first[1] == second[1]
    for one, other, third in zip(plain[0], first[0], second[0], strict=True):
        assert all(torch.equal(one[key], other[key]) and torch.equal(one[key], third[key]) for key in one)
