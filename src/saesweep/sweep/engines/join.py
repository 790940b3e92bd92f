"""Further nodes of a sweep without a scheduler: the usual command on the first node, and on each other one

    MASTER_ADDR=first MASTER_PORT=29500 NODE_RANK=1 saesweep join outputs/default

All nodes see the sweep's folder. A node that joins runs its ranks of every group, and ends with the launcher.
"""
import argparse
import json
import os
import subprocess
import time
from pathlib import Path

from saesweep.errors import UsageError, exit_on_usage_error
from saesweep.runtime import program
from saesweep.sweep.engines import worker

LAUNCHER = "launcher"  # exists while groups may follow


def expect(places: Path) -> None:
    places.mkdir(parents=True, exist_ok=True)
    (places / LAUNCHER).touch()


def over(places: Path) -> None:
    (places / LAUNCHER).unlink(missing_ok=True)
    if places.is_dir() and not any(places.iterdir()):
        places.rmdir()


def follow(sweep: Path) -> None:
    places = sweep / ".groups"
    print(f"waiting for groups of {sweep}", flush=True)
    while not (places / LAUNCHER).exists():
        time.sleep(0.2)
    seen: set[tuple[str, int]] = set()
    while (places / LAUNCHER).exists():
        for request in places.glob("*/group.json"):
            key = (request.parent.name, request.stat().st_mtime_ns)
            if key not in seen:
                seen.add(key)
                trainer = json.loads(request.read_text())["configs"][0]["trainer"]
                watch = os.environ | {worker.WATCH: str(os.getpid())}
                code = subprocess.run(worker.command(request.parent, trainer), env=watch).returncode
                print(f"{request.parent.name}: ended with {code}", flush=True)
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(prog=program.called("join"), description="Run this node's ranks of a sweep.")
    parser.add_argument("sweep", type=Path, help="its folder, such as outputs/default, which all nodes see")
    sweep = parser.parse_args().sweep
    if "NODE_RANK" not in os.environ:
        raise UsageError("set MASTER_ADDR, MASTER_PORT and NODE_RANK, which is 1 or more on a node that joins")
    follow(sweep)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
