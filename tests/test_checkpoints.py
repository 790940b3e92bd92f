"""Checkpoints: written atomically, verified when read, and resumed by any part of a group."""

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

GROUP = ("arch=jumprelu,gated,topk", "sparsity=4,8", "tokens=3200", "text.repeat=true", "save_tokens=320", "log_tokens=320")


def checkpoint(number):
    return Checkpoint({"a": torch.full((3,), float(number))}, {"number": number, "third": 1 / 3})


def written(folder, *steps):
    for step in steps:
        checkpoints.write(folder, step, checkpoint(step))
    return folder


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    (found,) = cohorts([written(tmp_path, 7)])
    assert (found.step, found.members) == (7, [0])
    tensors, state = checkpoints.read(found.saves[0])
    assert torch.equal(tensors["a"], torch.full((3,), 7.0)) and state == {"number": 7, "third": 1 / 3}


def test_the_last_two_checkpoints_are_kept(tmp_path):
    written(tmp_path, 5, 10, 15, 100)
    assert sorted(int(f.name.split("-")[0]) for f in (tmp_path / "checkpoint").iterdir()) == [15, 100]


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(tmp_path, caplog):
    written(tmp_path, 5, 10)
    (newest,) = (tmp_path / "checkpoint").glob("10-*")
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    assert [c.step for c in cohorts([tmp_path])] == [5]
    assert f"{newest} is damaged" in caplog.text
    newest.write_bytes(content[:50])
    assert [c.step for c in cohorts([tmp_path])] == [5]


def test_a_group_killed_while_writing_resumes_together_from_the_previous_checkpoint(tmp_path):
    folders = [written(tmp_path / "a", 5, 10), written(tmp_path / "b", 5, 10), written(tmp_path / "c", 5), tmp_path / "d"]
    found = cohorts(folders)
    assert [(c.step, c.members) for c in found] == [(5, [0, 1, 2]), (0, [3])]
    assert found[1].saves == [None]


def test_saes_without_a_common_checkpoint_resume_in_separate_cohorts(tmp_path):
    folders = [written(tmp_path / "a", 5), written(tmp_path / "b", 20), tmp_path / "c", written(tmp_path / "d", 5)]
    assert [(c.step, c.members) for c in cohorts(folders)] == [(5, [0, 3]), (20, [1]), (0, [2])]


def test_remove_deletes_only_checkpoints(tmp_path):
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
def uninterrupted(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    warm.ready()
    began = time.monotonic()
    ended = warm.run(command(text, *GROUP), folder, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder, time.monotonic() - began


def assert_uninterrupted(folder, uninterrupted):
    found, wanted = results(folder), results(uninterrupted)
    assert found.keys() == wanted.keys() and len(wanted) == 24
    for name in wanted:
        assert found[name] == wanted[name], name
    assert (folder / "outputs/default/pareto.csv").read_bytes() == (uninterrupted / "outputs/default/pareto.csv").read_bytes()
    assert not list(folder.rglob("checkpoint"))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("moment", ["*/*/*/*/checkpoint/*.safetensors", "*/*/*/*/eval.json"], ids=["training", "writing"])
def test_a_killed_sweep_resumes_to_the_results_of_an_uninterrupted_one(moment, text, uninterrupted, tmp_path):
    """Killed during the training, and when its first SAE is finished; test_kills.py has every kind of change."""
    process = warm.popen(command(text, *GROUP), tmp_path, ENV, stderr=subprocess.PIPE)
    while not list((tmp_path / "outputs/default").glob(moment)):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (tmp_path / "outputs/default/pareto.csv").exists()
    ended = warm.run(command(text, *GROUP), tmp_path, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_uninterrupted(tmp_path, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not os.environ.get("CI_FULL"), reason="takes 3 minutes: set CI_FULL=1")
def test_a_sweep_killed_at_20_random_moments_ends_like_an_uninterrupted_one(text, uninterrupted, tmp_path):
    """A sweep that reaches its end is compared and started anew, until there are 20 kills."""
    whole, seconds = uninterrupted
    random, kills, ends = torch.Generator().manual_seed(0), 0, 0
    while kills < 20 or ends == 0:
        share = 0.1 + 0.9 * float(torch.rand((), generator=random))  # the first tenth is its startup
        process = warm.popen(command(text, *GROUP), tmp_path, ENV, stderr=subprocess.PIPE)
        try:
            _, err = process.communicate(timeout=share * seconds if kills < 20 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0, err[-3000:]
            assert_uninterrupted(tmp_path, whole)
            shutil.rmtree(tmp_path / "outputs")
            ends += 1


@pytest.mark.slow
@pytest.mark.process
def test_checkpoints_of_finished_saes_are_removed_by_the_next_command(text, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    for job in tmp_path.rglob("eval.json"):
        written(job.parent, 5)
    assert len(list(tmp_path.rglob("checkpoint"))) == 6
    planned = warm.run([*command(text, *GROUP), "plan=true"], tmp_path, ENV)
    assert planned.returncode == 0 and len(list(tmp_path.rglob("checkpoint"))) == 6
    ended = warm.run(command(text, *GROUP), tmp_path, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_uninterrupted(tmp_path, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_checkpoints_and_the_same_command_resumes(number, code, text, uninterrupted, tmp_path):
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
    assert_uninterrupted(tmp_path, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.process
def test_results_on_a_replaced_text_are_refused_and_replaced_with_overwrite_true(tmp_path):
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


def test_a_result_without_a_record_of_its_origin_is_accepted(tmp_path, caplog):
    (tmp_path / "eval.json").write_text("{}")
    assert checkpoints.origins(tmp_path) == []
    checkpoints.write_origin(tmp_path, {"text": {"digest": "abc"}})
    assert checkpoints.origins(tmp_path) == [{"text": {"digest": "abc"}}]
    (tmp_path / checkpoints.ORIGIN).write_text("{")
    assert checkpoints.origins(tmp_path) == [] and "determined_by.json is unreadable" in caplog.text
    checkpoints.write_origin(tmp_path, {"text": {"digest": "abc"}})
    (tmp_path / "eval.json").unlink()
    assert checkpoints.origins(tmp_path) == []  # there is no result
