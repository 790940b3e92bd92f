"""The report of `python -m benchmarks.gpu`: all of it on the CPU at toy sizes, and what becomes of sections that fail."""
import json
import math
import sys
import time

import pytest
import torch
import warm
from benchmarks.gpu import __main__ as supervisor
from benchmarks.gpu import crossover, floor, lists, report, steps, timing, values
from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import ROOT, SECTIONS, known_device
from benchmarks.step import batches
from mock_gpu import REAL, gpu
from standin.cli import ENV

from saesweep.arch.ops import plain

# environment ends, values dies, steps hangs, crossover ends
WORKER = """
import os, sys, time
from pathlib import Path
from benchmarks.gpu import report
for name in sys.argv[sys.argv.index("--until") + 2:]:
    found = {"name": name, "title": "", "status": "running", "seconds": 0.0, "notes": [], "traceback": "",
             "tables": {"rows": [{"row": 1}]}, "began": time.time(), "until": time.time() - 100 * (name == "steps")}
    report.save(Path(sys.argv[2]), found)
    if name == "values":
        os._exit(7)
    time.sleep(60 * (name == "steps"))
    report.save(Path(sys.argv[2]), found | {"status": "done"})
"""


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    file = tmp_path / "worker.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{WORKER}")
    monkeypatch.setattr(supervisor, "WORKER", (str(file),))


def names_and_statuses(found):
    return [(section["name"], section["status"]) for section in found]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.kernels
def test_a_dry_run_ends_with_a_report_of_all_sections(tmp_path):
    words = ["--dry-run", "--out", str(tmp_path), "--seconds", "3000"]
    ended = warm.run([sys.executable, "-m", "benchmarks.gpu", *words], ROOT, ENV)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert names_and_statuses(found) == [(name, "done") for name, section in SECTIONS.items() if section["usual"]]
    sections = {section["name"]: section for section in found}
    assert all(section["traceback"] == "" and section["tables"] for section in found), sections
    (operations,) = sections["values"]["tables"].values()
    assert len(operations) == 8 and all(row["good"] for row in operations), operations
    *_, steps = sections["steps"]["tables"].values()
    archs = {file.stem for file in (ROOT / "conf/arch").glob("*.yaml")}
    assert {row["arch"].split()[0] for row in steps} == archs and all(row["tokens/s"] > 0 for row in steps)
    assert sections["suite"]["tables"]["tests"][0]["passed"] == 1
    same = sections["resume"]["tables"]["resumed against undisturbed"]
    assert len(same) == 2 and all(row["same bits"] for row in same)
    text = (tmp_path / "report.md").read_text()
    assert all(f"## {name}: " in text for name in sections) and "| topk | 320 |" in text


@pytest.mark.slow
@pytest.mark.kernels
def test_operations_and_steps_are_measured_on_a_gpu(tmp_path, monkeypatch):
    """On the mock one without events, and counts of memory."""
    pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
    if not REAL:
        monkeypatch.setattr(timing, "milliseconds", lambda call, *_: [call(), 1.0, 1.0, 1.0][1:])
        monkeypatch.setattr(timing, "forget_peak", lambda device: None)
        monkeypatch.setattr(timing, "peak_gigabytes", lambda device: 1.0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    shape = {"batch": 6, "d_in": 8, "d_sae": 48, "k": 2}
    numbers = {"compared": 2, "tolerance": 1e-5, "missing": 1e-4, "rounds": 3, "seconds": 0.1}
    measured = Section("values", "", numbers | {"shapes": [shape]}, "cuda", 600.0, tmp_path)
    trained = Section("steps", "", {"batch": 6, "d_in": 8, "k": 2, "rounds": 3, "seconds": 0.1}, "cuda", 600.0, tmp_path)
    with gpu(), lists.of_any_length():
        values.run(measured)
        steps._measure(trained, batches(8, 6, 4, "cuda"), floor.rates_of(trained.device), "topk", 48)
    (operations,), (rows,) = measured.found["tables"].values(), trained.found["tables"].values()
    assert len(operations) == 8 and all(row["good"] for row in operations), operations
    assert rows[0]["L0"] == 2 and rows[0]["listed"] == 1 and not measured.failed


def test_without_a_gpu_it_says_how_to_run_it(monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor, "_run_worker", lambda *_: supervisor.NO_GPU)
    with pytest.raises(SystemExit, match="--dry-run"):
        supervisor.supervise(["steps"], tmp_path, time.time() + 9, False, tmp_path)


@pytest.mark.slow
def test_sections_go_on_after_one_that_dies_and_one_that_hangs(fake_worker, tmp_path):
    names = ["environment", "values", "steps", "crossover"]
    found = supervisor.supervise(names, tmp_path / "sections", time.time() + 60, True, tmp_path / "out")
    assert names_and_statuses(found) == list(zip(names, ["done", "stopped", "stopped", "done"], strict=True))
    assert found[1]["tables"] == {"rows": [{"row": 1}]} and "code 7" in found[1]["notes"][0]
    assert found == json.loads((tmp_path / "out/report.json").read_text())


def test_sections_for_which_no_time_is_left_are_named(tmp_path):
    found = supervisor.supervise(["steps", "suite"], tmp_path / "sections", time.time() - 1, True, tmp_path / "out")
    assert names_and_statuses(found) == [("steps", "not reached"), ("suite", "not reached")]
    assert "## suite: " in (tmp_path / "out/report.md").read_text()


@pytest.mark.slow
def test_a_measurement_that_fails_is_noted_and_the_next_one_follows(tmp_path):
    def memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    section = Section("steps", "Steps", {}, "cpu", 60.0, tmp_path)
    section.each([("one", lambda: 1 / 0), ("two", memory), ("three", lambda: section.row("rows", ms=2.0))])
    (found,) = report.read(tmp_path, ["steps"])
    assert found["tables"] == {"rows": [{"ms": 2.0}]} and "two: out of memory" in found["notes"]
    assert "one: ZeroDivisionError: division by zero" in found["notes"] and "1 / 0" in found["traceback"]
    section.end()
    assert report.read(tmp_path, ["steps"])[0]["status"] == "failed"


def test_a_table_shows_three_digits_and_leaves_out_what_is_unknown():
    assert report.table([{"a": 1234.5, "b": None}, {"a": 0.123456, "c": "x|y"}]) == [
        "| a | b | c |", "| --- | --- | --- |", "| 1,234 |  |  |", "| 0.123 |  | x/y |",
    ]


def test_the_floor_of_a_step_is_product_update_and_rows():
    rates = {"bf16": 1.0, "memory": 1.0}
    shape = {"batch": 1000, "d_in": 500, "d_sae": 2000, "l0": 10.0}
    product, update, rows = 2 * 1000 * 500 * 2000, 24 * 2 * 500 * 2000, 2 * 1000 * 10 * 4 * 500 + 2 * 4 * 1000 * 500
    assert floor.milliseconds(rates, **shape) == pytest.approx((product + update + rows) / 1e9)
    assert floor.milliseconds(rates, **shape, mean=False) == pytest.approx((product + update * 2 / 3 + rows) / 1e9)


def test_a_gpu_is_known_by_a_word_of_its_name():
    assert known_device("NVIDIA H100 80GB HBM3")["memory"] == 3.35 and known_device("NVIDIA GeForce RTX 4090")["bf16"] == 165
    assert known_device("NVIDIA GeForce RTX 40900") is None


def test_the_crossover_is_where_list_and_dense_take_the_same_time():
    assert crossover.crossover([(4.0, 2.0), (16.0, 0.5), (64.0, 0.1)]) == pytest.approx(8.0)
    assert crossover.crossover([(4.0, 0.9), (16.0, 0.5)]) is None and crossover.crossover([(4.0, 3.0)]) is None
    assert crossover.geometric_mean([4.0, 16.0]) == pytest.approx(8.0)


def test_missing_entries_and_wrong_values_are_found():
    random = torch.Generator().manual_seed(0)
    u, W = torch.randn(20, 8, generator=random), torch.randn(60, 8, generator=random)
    wanted = plain.choose(u, W, torch.zeros(60), None, 5)
    starts, rows, columns, chosen = wanted
    assert values.compare_choice(wanted, wanted, None, 60) == (0, 100, 100, 0.0, 0.0)
    dropped = chosen.where(torch.arange(100) != 3, 0.0)
    missing, _, listed, by, _ = values.compare_choice((starts, rows, columns, dropped), wanted, None, 60)
    assert (missing, listed) == (1, 100) and by == pytest.approx(float(chosen[3] - chosen[[0, 1, 2, 4]].min()), abs=1e-6)
    assert values.compare_choice((starts, rows, columns, 1.01 * chosen), wanted, None, 60)[4] == pytest.approx(0.01, rel=1e-3)
    assert values.relative(torch.tensor([math.nan]), torch.ones(1)) == math.inf
