"""Saves: whole or not at all, damage is noticed, and any part of a group goes on."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import warm
from small import command, results, weights, write_text
from standin.cli import ENV

from saesweep.storage import checkpoints
from saesweep.storage.checkpoints import Checkpoint, cohorts

GROUP = ("arch=jumprelu,gated,topk", "sparsity=4,8", "tokens=6400", "text.repeat=true", "save_tokens=640", "log_tokens=320")


def save(number):
    return Checkpoint({"a": torch.full((3,), float(number))}, {"number": number, "third": 1 / 3})


def written(folder, *steps):
    for step in steps:
        checkpoints.write(folder, step, save(step))
    return folder


def test_a_save_comes_back_as_it_was(tmp_path):
    (found,) = cohorts([written(tmp_path, 7)])
    assert (found.step, found.members) == (7, [0])
    tensors, state = checkpoints.read(found.saves[0])
    assert torch.equal(tensors["a"], torch.full((3,), 7.0)) and state == {"number": 7, "third": 1 / 3}


def test_the_last_two_are_kept(tmp_path):
    written(tmp_path, 5, 10, 15, 100)
    assert sorted(int(f.name.split("-")[0]) for f in (tmp_path / "checkpoint").iterdir()) == [15, 100]


def test_a_damaged_save_is_reported_and_the_one_before_is_used(tmp_path, caplog):
    written(tmp_path, 5, 10)
    (newest,) = (tmp_path / "checkpoint").glob("10-*")
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    assert [c.step for c in cohorts([tmp_path])] == [5]
    assert f"{newest} is damaged" in caplog.text
    newest.write_bytes(content[:50])
    assert [c.step for c in cohorts([tmp_path])] == [5]


def test_a_group_that_was_killed_while_it_was_saved_goes_on_together_from_the_save_before(tmp_path):
    folders = [written(tmp_path / "a", 5, 10), written(tmp_path / "b", 5, 10), written(tmp_path / "c", 5), tmp_path / "d"]
    found = cohorts(folders)
    assert [(c.step, c.members) for c in found] == [(5, [0, 1, 2]), (0, [3])]
    assert found[1].saves == [None]


def test_saes_that_never_were_saved_together_go_on_one_after_the_other(tmp_path):
    folders = [written(tmp_path / "a", 5), written(tmp_path / "b", 20), tmp_path / "c", written(tmp_path / "d", 5)]
    assert [(c.step, c.members) for c in cohorts(folders)] == [(5, [0, 3]), (20, [1]), (0, [2])]


def test_only_what_was_saved_is_removed(tmp_path):
    written(tmp_path, 5)
    checkpoints.remove(tmp_path)
    assert not (tmp_path / "checkpoint").exists() and not checkpoints.has_checkpoint(tmp_path)
    written(tmp_path, 5)
    (tmp_path / "checkpoint/notes.txt").write_text("mine")
    checkpoints.remove(tmp_path)
    assert [f.name for f in (tmp_path / "checkpoint").iterdir()] == ["notes.txt"]


# Through the command line


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def undisturbed(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    warm.ready()
    began = time.monotonic()
    ended = warm.run(command(text, *GROUP), folder, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder, time.monotonic() - began


def assert_undisturbed(folder, undisturbed):
    found, wanted = results(folder), results(undisturbed)
    assert found.keys() == wanted.keys() and len(wanted) == 24
    for name in wanted:
        assert found[name] == wanted[name], name
    assert (folder / "outputs/default/pareto.csv").read_bytes() == (undisturbed / "outputs/default/pareto.csv").read_bytes()
    assert not list(folder.rglob("checkpoint"))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("moment", ["*/*/*/*/checkpoint/*.safetensors", "*/*/*/*/eval.json"], ids=["training", "writing"])
def test_a_sweep_that_is_killed_leaves_what_an_undisturbed_one_leaves(moment, text, undisturbed, tmp_path):
    """In the middle of the training, and when the first of its SAEs is finished; every kind of change is in test_kills.py."""
    process = warm.popen(command(text, *GROUP), tmp_path, ENV, stderr=subprocess.PIPE)
    while not list((tmp_path / "outputs/default").glob(moment)):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (tmp_path / "outputs/default/pareto.csv").exists()
    ended = warm.run(command(text, *GROUP), tmp_path, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_undisturbed(tmp_path, undisturbed[0])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not os.environ.get("CI_FULL"), reason="takes 3 minutes: set CI_FULL=1")
def test_a_sweep_killed_at_20_random_moments_leaves_what_an_undisturbed_one_leaves(text, undisturbed, tmp_path):
    """Whenever it has reached its end, it is started anew, until it was killed so often."""
    whole, seconds = undisturbed
    random, kills, ends = torch.Generator().manual_seed(0), 0, 0
    while kills < 20 or ends == 0:
        share = 0.1 + 0.9 * float(torch.rand((), generator=random))  # the first tenth is its start
        process = warm.popen(command(text, *GROUP), tmp_path, ENV, stderr=subprocess.PIPE)
        try:
            _, err = process.communicate(timeout=share * seconds if kills < 20 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0, err[-3000:]
            assert_undisturbed(tmp_path, whole)
            shutil.rmtree(tmp_path / "outputs")
            ends += 1


@pytest.mark.slow
@pytest.mark.process
def test_what_an_sae_that_was_killed_when_it_had_just_finished_saved_goes_with_the_next_command(text, undisturbed, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    for job in tmp_path.rglob("eval.json"):
        written(job.parent, 5)
    assert len(list(tmp_path.rglob("checkpoint"))) == 6
    planned = warm.run([*command(text, *GROUP), "plan=true"], tmp_path, ENV)
    assert planned.returncode == 0 and len(list(tmp_path.rglob("checkpoint"))) == 6
    ended = warm.run(command(text, *GROUP), tmp_path, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_undisturbed(tmp_path, undisturbed[0])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_with_its_code_and_the_same_command_goes_on(number, code, text, undisturbed, tmp_path):
    words = [word if not word.startswith("save_tokens") else "save_tokens=1_000_000" for word in command(text, *GROUP)]
    with warm.popen(words, tmp_path, ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as p:
        while not list(tmp_path.rglob("metrics.csv")):
            time.sleep(0.05)
        p.send_signal(number)
        _, err = p.communicate(timeout=30)
    assert p.returncode == code and "interrupted" in err and "Traceback" not in err
    assert len(list(tmp_path.rglob("checkpoint/*.safetensors"))) == 6
    ended = warm.run(words, tmp_path, ENV)
    assert ended.returncode == 0 and "resuming at" in ended.stdout + ended.stderr
    assert_undisturbed(tmp_path, undisturbed[0])


@pytest.mark.slow
@pytest.mark.process
def test_what_is_finished_on_a_text_that_was_replaced_is_refused_and_made_anew_where_that_is_asked_for(tmp_path):
    file = Path(write_text(tmp_path))
    words = command(str(file), "arch=topk", "sparsity=4,8", "tokens=1280", "text.repeat=true")
    warm.ready()
    assert warm.run(words, tmp_path, ENV).returncode == 0
    before = weights(tmp_path)
    stat = file.stat()
    write_text(tmp_path, seed=1)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    refused = warm.run(words, tmp_path, ENV)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.count("other text or weights of the same name") == 2
    assert re.search(r"text\.digest: \w+ there, \w+ now", refused.stderr) and "overwrite=true" in refused.stderr
    assert weights(tmp_path) == before
    replaced = warm.run([*words, "overwrite=true"], tmp_path, ENV)
    assert replaced.returncode == 0, replaced.stderr[-3000:]
    after = weights(tmp_path)
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in before)
    assert warm.run(words, tmp_path, ENV).returncode == 0 and weights(tmp_path) == after
    file.unlink()
    gone = warm.run(words, tmp_path, ENV)
    assert gone.returncode == 0 and "have changed: text.glob=" in gone.stdout + gone.stderr


def test_a_result_that_does_not_say_what_it_was_trained_on_is_accepted(tmp_path, caplog):
    (tmp_path / "eval.json").write_text("{}")
    assert checkpoints.origins(tmp_path) == []
    checkpoints.write_origin(tmp_path, {"text": {"digest": "abc"}})
    assert checkpoints.origins(tmp_path) == [{"text": {"digest": "abc"}}]
    (tmp_path / checkpoints.ORIGIN).write_text("{")
    assert checkpoints.origins(tmp_path) == [] and "determined_by.json is unreadable" in caplog.text
    checkpoints.write_origin(tmp_path, {"text": {"digest": "abc"}})
    (tmp_path / "eval.json").unlink()
    assert checkpoints.origins(tmp_path) == []  # of a training that left nothing
