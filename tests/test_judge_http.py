"""The judge and a server, over HTTP: the scores, a kill, and that the key stands nowhere."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from judge_server import Server
from judged import judged, records, some

from saesweep.errors import UsageError

pytest.importorskip("openai")
pytestmark = pytest.mark.slow
CANARY = "sk-canary0123456789abcdefCANARY"
TASKS = ["detection", "fuzz", "simulate", "intruder_lm"]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def test_the_same_scores_come_over_http(tmp_path):
    with Server() as server:
        found = judged(server, tmp_path, some(2), tasks=TASKS, windows=4, controls=0)
    assert (found[["detection", "fuzz", "intruder_lm"]] == 1).all().all() and (found["simulate"] > 0.8).all()
    said = {row["said"] for row in records(tmp_path, "answers.jsonl") if row["task"] == "detection"}
    assert {round(one, 2) for one in said} <= {0.09, 0.91, 0.9, 0.1}


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from judged import latent, settings
from saesweep.study.judge.judge import judge
node = settings(model="standin", base_url=sys.argv[1])
judge([latent(n) for n in range(6)], node, jobs={{"a": Path("a")}}, cache=Path("cache/responses.sqlite"), seed=0)
"""


@pytest.mark.slow
@pytest.mark.process
def test_a_run_that_is_killed_loses_the_requests_under_way_alone(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED.format(path=[path for path in sys.path if path]))
    with Server(delay=0.02) as server:
        words = [sys.executable, str(tmp_path / "killed.py"), server.url]
        process = warm.popen(words, tmp_path, os.environ, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(server.bodies) < 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert 60 <= len(server.bodies) < 6 * 31 and not (tmp_path / "a/study").exists()
        found = judged(server, tmp_path, some())
    assert (found["detection"] == 1).all() and (tmp_path / "a/study/answers.jsonl").is_file()
    twice = sum(count > 1 for count in server.asked.values())
    assert twice <= 2 * 8  # those at the server, and those answered and not yet read


def test_the_key_stands_in_no_file_no_log_and_no_message(tmp_path, caplog, capfd):
    with Server(refuses=["seed"]) as server:
        server.faults = ["", "", "400", "500", "no text", "unread"]
        judged(server, tmp_path, some(2), tasks=TASKS, windows=4)
        server.faults = ["401"] * 10
        with pytest.raises(UsageError) as error:
            judged(server, tmp_path, some(3), tasks=TASKS, windows=4)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".sqlite", ".jsonl"}
    assert not [file for file in files if CANARY.encode() in file.read_bytes()]
    assert CANARY not in caplog.text + "".join(capfd.readouterr()) + str(error.value)
    assert all(headers["authorization"] == f"Bearer {CANARY}" for headers in server.headers)
    assert os.environ["OPENAI_API_KEY"] == CANARY and not list(Path(tmp_path).glob("*.tmp"))
