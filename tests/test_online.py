"""W&B online: what its server receives from a running sweep. The server is a stand-in on this machine."""

import csv
import json
import sys

import pytest
import warm
from offline import refuse_network_and_logins, saes
from small import command, write_text
from standin.cli import ENV, ROOT
from wandb_server import KEY, Server

from saesweep.report.style import STYLES

pytestmark = [pytest.mark.slow, pytest.mark.process]


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture
def account(server, tmp_path):
    folders = {name: str(tmp_path / "wandb") for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")}
    return ENV | folders | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "NETRC": str(tmp_path / "no_netrc")}


def test_the_server_receives_every_row_and_the_folders_have_the_urls(server, account, tmp_path):
    words = ["arch=topk,relu", "logger=[csv,wandb]", "logger.wandb.live_seconds=0.2", "name=study"]
    done = warm.run(command(write_text(tmp_path), *words), tmp_path, account, figures=True)
    assert done.returncode == 0 and "wandb sync" not in done.stdout, done.stdout + done.stderr
    sweep = tmp_path / "outputs/study"
    for folder in saes(sweep):
        history = server.history[id_at(folder, server)]
        logged = [{key.removeprefix("train/"): value for key, value in row.items() if key[0] != "_"} for row in history]
        with (folder / "metrics.csv").open() as file:
            assert logged == [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    shown = [row["pareto"] for row in server.history[id_at(sweep, server)]]
    assert len(shown) > 1 and {table["nrows"] for table in shown} == {2}, "updated during the training and at its end"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if KEY.encode() in file.read_bytes()] and KEY not in done.stdout + done.stderr


def id_at(folder, server):
    url = (folder / "wandb/url.txt").read_text().strip()
    address, run = url.rsplit("/", 1)
    assert address == f"{server.url}/me/saesweep/runs"
    return run


def test_the_dashboard_is_saved_with_the_colours_of_the_existing_runs(server, account):
    server.archs = {"a1": "topk", "b2": "gated"}
    words = [sys.executable, "-m", "saesweep.report.dashboard", "--entity", "me", "--project", "saesweep", "--name", "mine"]
    done = warm.run(words, ROOT, account)
    assert done.returncode == 0 and done.stdout.startswith(f"{server.url}/me/saesweep?nw="), done.stderr
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "saesweep", "mine")
    colours = json.loads(view["spec"])["section"]["customRunColors"]
    assert colours == {"a1": STYLES["topk"].colour, "b2": STYLES["gated"].colour}


def test_runs_are_offline_if_the_server_cannot_be_reached(account, tmp_path, monkeypatch):
    refuse_network_and_logins(monkeypatch, tmp_path)
    dead = account | {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    script = "from offline import OFFLINE; from saesweep.loggers import wandb_runs; from pathlib import Path; import sys\n"
    script += "chosen = OFFLINE | {'mode': None}\n"
    script += "wandb_runs.SummaryRun(chosen, Path(sys.argv[1])).finish(0)\n"
    path = {"PYTHONPATH": f"{ENV['PYTHONPATH']}:{ROOT / 'tests'}"}
    (tmp_path / "script.py").write_text(script)
    done = warm.run([sys.executable, str(tmp_path / "script.py"), str(tmp_path)], ROOT, dead | path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1 and "offline" in done.stderr
