"""Reads offline W&B runs back from their files, and blocks the network while they are written."""

import json
import os
import socket
import struct
import time

import pandas as pd
import warm
from small import ARCHS, command, write_text
from standin.cli import ENV

from saesweep.loggers import wandb_runs

OFFLINE = {"name": "wandb", "project": "saesweep", "entity": None, "mode": "offline", "live_seconds": 60.0, "artifacts": False}


def refuse_network_and_logins(monkeypatch, folder):
    """Allows connections to unix sockets and to this machine alone, and removes W&B's login and settings."""
    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"), f"network: {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(folder / "no_netrc"))
    wandb_runs._logged_in.cache_clear()


def records(file):
    """The protobuf records of a .wandb file: a header of 7 bytes, then LevelDB's log, 32 KiB blocks of framed fragments."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while len(data) - at >= 7:
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if at + 7 + size > len(data):
            return  # still being written
        first, last = kind in (1, 2), kind in (1, 4)
        whole = (b"" if first else whole) + data[at + 7 : at + 7 + size]
        at += 7 + size
        if last:
            yield Record.FromString(whole)


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read(folder):
    """The content of the only offline run in a folder; W&B's process writes its end shortly after finish() returns."""
    wandb_runs.flush()
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return finished_run(file)


def finished_run(file):
    for _ in range(200):
        if "exit" in (run := parse(file)):
            return run
        time.sleep(0.05)
    raise AssertionError(f"{file} was not finished within 10 seconds")


def parse(file):
    run = {"config": {}, "history": [], "summary": {}, "steps": {}, "artifacts": []}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            info = record.run
            run |= {"id": info.run_id, "name": info.display_name, "group": info.run_group, "tags": list(info.tags),
                    "job_type": info.job_type, "project": info.project, "notes": info.notes}
            run["config"] |= values(info.config.update)
        elif kind == "config":
            run["config"] |= values(record.config.update)
        elif kind == "history":
            run["history"].append(values(record.history.item))
        elif kind == "summary":
            run["summary"] |= values(record.summary.update)
        elif kind == "metric":
            run["steps"][record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "artifact":
            run["artifacts"].append(record.artifact)
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    return run


def keys(run):
    """The keys of a run's history and summary, without W&B's own."""
    logged = {key for row in [*run["history"], run["summary"]] for key in row}
    return {key for key in logged if not key.startswith("_")}


def table(folder, row, key):
    """The table that a row of the history refers to, as a DataFrame."""
    (file,) = folder.glob(f"wandb/offline-run-*/files/{row[f'{key}/path']}")
    content = json.loads(file.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def train_reference(folder):
    """Trains a small sweep of every architecture by the command line, with the loggers of the tests."""
    more = [f"arch={','.join(ARCHS)}", "site=mlp", "layer=0", "logger=[csv,wandb,tensorboard]", "logger.wandb.mode=offline",
            "logger.wandb.artifacts=true"]
    environment = ENV | {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_CACHE_DIR": str(folder / "cache")}
    words = command(write_text(folder, 200), *more)
    done = warm.run(words, folder, environment, figures=True)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)


def saes(sweep):
    return sorted(file.parent for file in sweep.glob("*/*/*/*/eval.json"))
