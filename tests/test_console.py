"""What a run says while it starts: a word for whatever takes seconds, repeated where somebody looks at a terminal."""
import io
import sys
import time
from itertools import groupby
from types import SimpleNamespace

import pytest
from small import RESOURCES, job, write_text

from saesweep.runtime import console
from saesweep.sweep.probe import estimate


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(console, "PATIENCE", 0.01)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: 7.0))  # 0 s, however slow the machine is
    monkeypatch.setattr(console, "sys", SimpleNamespace(stderr=Terminal(), modules=sys.modules))  # pytest sets sys.stderr anew
    return console.sys.stderr


def wait_for(said):
    end = time.monotonic() + 20
    while not said():
        assert time.monotonic() < end, "nothing was said"
        time.sleep(0.005)


def test_on_a_terminal_work_is_named_again_with_its_seconds_until_it_ends(terminal):
    with console.working("reading the text"):
        wait_for(lambda: terminal.getvalue().count("\n") > 3)
    said = terminal.getvalue().splitlines()
    assert said[0] == "reading the text" and set(said[1:]) == {"reading the text, 0 s"}
    time.sleep(0.05)
    assert terminal.getvalue().splitlines() == said and not console._working


def test_of_nested_work_the_innermost_speaks(terminal):
    with console.working("outer"):
        with console.working("inner"):
            wait_for(lambda: terminal.getvalue().count("inner, ") > 2)
        so_far = len(terminal.getvalue())
        wait_for(lambda: "outer, " in terminal.getvalue()[so_far:])
    said = [line for line, _ in groupby(terminal.getvalue().splitlines())]
    early = said[1:2] if said[1] == "outer, 0 s" else []  # on a slow machine, before the inner begins
    assert said == ["outer", *early, "inner", "inner, 0 s", "outer, 0 s"]


def test_work_that_fails_is_over(terminal):
    with pytest.raises(ValueError, match="no"), console.working("trying"):
        raise ValueError("no")
    assert terminal.getvalue() == "trying\n" and not console._working


def test_elsewhere_work_is_named_once_or_not_at_all(monkeypatch, capsys):
    monkeypatch.setattr(console, "PATIENCE", 0.01)
    with console.working("reading the text"), console.working("checking the settings", always=False):
        time.sleep(0.05)
    assert capsys.readouterr().err == "reading the text\n"


def test_under_the_live_table_work_is_its_status_line(monkeypatch, capsys):
    monkeypatch.setattr(console, "PATIENCE", 0.01)
    said = []
    with console.route_status(said.append), console.working("calibrating", always=False):
        wait_for(lambda: len(said) > 2)
    assert said[0] == "calibrating" and said[2] == "calibrating, 0 s" and capsys.readouterr().err == ""


def test_the_plan_names_each_of_its_parts_before_it_begins(tmp_path, capsys):
    estimate([job(write_text(tmp_path), "arch=topk")], RESOURCES)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "tokens" not in line] == [
        "reading the text, files", "loading tiny, and timing a forward of it", "timing a step of each kind of SAE"]
