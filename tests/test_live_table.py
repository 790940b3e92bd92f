"""The live table, on an emulated terminal."""

import os
import pty
import select
import struct
import termios
import time
from fcntl import ioctl

import pyte
import pytest
import warm
from small import ARCHS, command, write_text
from standin.cli import ENV
from test_faults import ENV_WITH_FAULTS, faulty

__all__ = ["faulty"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.process]
LINES, COLUMNS = 30, 110
LONG = ("tokens=32_000", "text.repeat=true")  # long enough for several refreshes of the table


def watched(words, folder, lines=LINES, env=ENV):
    """Runs a command on a terminal: all its screens, all lines at the end with the scrollback, and the exit code."""
    warm.ready()
    inside, outside = pty.openpty()
    ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, COLUMNS, 0, 0))
    environment = env | {"TERM": "xterm", "LINES": str(lines), "COLUMNS": str(COLUMNS)}
    process = warm.popen(words, folder, environment, stdout=outside, stderr=outside, stdin=outside)
    os.close(outside)
    screen = pyte.HistoryScreen(COLUMNS, lines, history=10_000)
    stream, screens, end = pyte.ByteStream(screen), [], time.monotonic() + 300
    while time.monotonic() < end:
        if not select.select([inside], [], [], 1)[0]:
            continue
        try:
            data = os.read(inside, 65536)
        except OSError:  # the last process has closed the terminal
            break
        stream.feed(data)
        screens.append([line.rstrip() for line in screen.display])
    scrolled = ["".join(line[i].data for i in range(COLUMNS)).rstrip() for line in screen.history.top]
    return screens, scrolled + screens[-1], process.wait(30)


def rows(screen):
    found = [line.split() for line in screen if line.startswith("tiny resid.1")]
    return [row for row in found if len(row) == 12]


@pytest.fixture
def sweep(tmp_path):
    return command(write_text(tmp_path, 200), "arch=topk,jumprelu", "sparsity=3,6", *LONG, "name=seen")


def test_one_table_with_a_row_per_sae_is_updated_in_place_and_removed_at_the_end(sweep, tmp_path):
    screens, everything, code = watched(sweep, tmp_path)
    assert code == 0
    live = [rows(screen) for screen in screens if any("dead" in line and "state" in line for line in screen)]
    full = [table for table in live if len(table) == 4]
    assert full and max(len(table) for table in live) == 4, "there is never a second table"
    states = {row[-1] for table in full for row in table}
    assert "training" in states and states <= {"waiting", "training", "evaluating", "finished"}
    training = [row for table in full for row in table if row[-1] == "training"]
    assert any(row[2:4] == ["topk", "3"] and row[7:9] == ["of", "3"] and 0 < float(row[6]) < 12 for row in training)
    assert any("/s  " in line and "s left" in line for screen in screens for line in screen)
    assert not [line for line in everything if "dead   state" in line], "the table is removed"
    text = "\n".join(everything)
    assert text.index("4 SAEs to train in 1 group") < text.index("thresholds shifted") < text.index("Comparison at the same L0")


def test_a_short_terminal_shows_some_rows_and_counts_all(sweep, tmp_path):
    words = [word.replace("32_000", "20_000") for word in sweep]
    screens, _, code = watched(words, tmp_path, lines=8)
    assert code == 0
    live = [screen for screen in screens if any("training" in line and "," not in line for line in screen)]
    assert live and all(len(rows(screen)) <= 4 for screen in live)
    assert any("4 training" in line for screen in screens for line in screen)


def test_a_failed_sae_is_shown_as_failed_while_the_others_continue(request, tmp_path):
    request.getfixturevalue("faulty")("faults.TurnsNaN")
    words = command(write_text(tmp_path, 200), "arch=topk,faulty", "sparsity=3", *LONG, "name=seen")
    screens, everything, code = watched([*words, "--config-dir", "mine"], tmp_path, env=ENV_WITH_FAULTS)
    assert code == 1 and "1 of 2 SAEs failed" in "\n".join(everything)
    states = [{row[2]: row[-1] for row in rows(screen)} for screen in screens]
    assert any(s.get("faulty") == "failed" and s.get("topk") in ("training", "evaluating") for s in states)


def test_without_a_terminal_there_are_plain_lines(reference_sweep):
    out, err = ((reference_sweep.parents[1] / name).read_text() for name in ("stdout", "stderr"))
    assert any("tokens" in line and f"L0 (FVU):  {ARCHS[0]}/4" in line for line in err.splitlines())
    assert "\x1b[" not in out + err
