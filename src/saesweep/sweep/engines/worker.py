"""A group in processes of its own, one per device: on this machine, on others, and under Slurm or Ray.

Every rank reads the same composed configs from a file and calls the same function. The place of a group is a folder that
all ranks see:

    group.json        from the launcher: configs, folders, logs, the function
    stop              from the launcher: save and exit
    <rank>.error      from a rank: its error
    results.json      from rank 0: the metrics or the error of each SAE

    python -m saesweep.sweep.engines.worker PLACE      what each rank runs
"""
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from saesweep.config.instantiate import locate
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.runtime import atomic, signals
from saesweep.sweep.engines.base import Results, place_of
from saesweep.sweep.jobs import Job

WATCH = "SAESWEEP_WATCH"  # the process on this machine that the ranks end with


class RankFailed(RuntimeError):
    """A rank has ended with an error."""


class RanksOutOfMemory(RankFailed):
    """The SAEs of the group do not fit into memory together."""


def devices(trainer: Mapping[str, Any]) -> int:
    """Ranks per node."""
    return trainer.get("devices", 1)


def world_size(trainer: Mapping[str, Any]) -> int:
    """Ranks that train a group."""
    return devices(trainer) * trainer.get("num_nodes", 1)


def request(run: str, group: Sequence[Job]) -> Path:
    """Write group.json; returns the place."""
    place, content = place_of(group), {
        "run": run, "configs": [job.settings for job in group], "folders": [str(job.folder) for job in group],
        "logs": [str(job.folder / f"{job.composed.hydra.job.name}.log") for job in group],
    }
    for job in group:
        job.folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    atomic.write(place / "group.json", json.dumps(content, default=str))
    return place


def command(place: Path, trainer: Mapping[str, Any]) -> list[str]:
    """The command that starts this node's ranks; with several nodes, each has MASTER_ADDR, MASTER_PORT and NODE_RANK set."""
    ours = ["-m", "saesweep.sweep.engines.worker", str(place)]
    if world_size(trainer) == 1:
        return [sys.executable, *ours]
    words = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices(trainer)}"]
    if (nodes := trainer.get("num_nodes", 1)) == 1:
        return [*words, "--standalone", *ours]
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(f"trainer.num_nodes={nodes}: set {' and '.join(missing)} to the first node's address and a free "
                         "port, and join on the others (docs/scaling.md); or use hydra/launcher=slurm")
    meet = [f"--master-addr={os.environ['MASTER_ADDR']}", f"--master-port={os.environ['MASTER_PORT']}"]
    return [*words, f"--nnodes={nodes}", f"--node-rank={os.environ.get('NODE_RANK', 0)}", *meet, *ours]


def results(place: Path, how: str) -> Results:
    """The results of ranks that have ended, whose place is removed unless they failed as a whole.

    how: in words, the end of ranks that have left no error.
    """
    if (place / "results.json").is_file():
        found = json.loads((place / "results.json").read_text())
        shutil.rmtree(place)
        with suppress(OSError):  # others may still run
            place.parent.rmdir()
        return [RuntimeError(result["failed"]) if "failed" in result else result for result in found]
    errors = sorted(place.glob("*.error"), key=lambda file: file.stat().st_mtime_ns)
    if not errors:
        raise RankFailed(f"a rank was killed: {how}")
    error = json.loads(errors[0].read_text())  # the first one; the others follow from it
    if error["usage"]:
        raise UsageError(error["what"])
    kind = RanksOutOfMemory if error["memory"] else RankFailed
    raise kind(f"rank {errors[0].stem} failed: {error['what']}\n{error['traceback']}")


def main(place: Path) -> None:
    """One rank, from its environment: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT."""
    group = json.loads((place / "group.json").read_text())
    if watched := os.environ.get(WATCH):
        threading.Thread(target=_end_with, args=(int(watched), os.getppid()), daemon=True).start()
    signals.watch_stop_file(place / "stop")
    signals.install_handler(signal.SIGTERM, signals.request_stop)
    try:
        _rank(place, group)
    except Exception as error:
        from saesweep.runtime.memory import out_of_memory

        content = {
            "what": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc(),
            "usage": False, "memory": out_of_memory(error),
        }
        if isinstance(error, UsageError):
            content |= {"what": str(error), "usage": True}
        else:
            print(content["traceback"], file=sys.stderr, flush=True)
        (place / f"{os.environ.get('RANK', 0)}.error").write_text(json.dumps(content))
        os._exit(1)  # without cleanup: other ranks may be waiting for this one


def _rank(place: Path, group: Mapping[str, Any]) -> None:
    from saesweep.runtime import distributed

    trainer = group["configs"][0]["trainer"]
    if world_size(trainer) > 1:
        distributed.begin(trainer["accelerator"], locate(trainer["strategy"]["_target_"]).ranks_share_saes)
    _log_to(group["logs"] if distributed.rank() == 0 else None)
    function = locate(group["run"], "hydra.launcher.run")
    found = function(group["configs"], list(map(Path, group["folders"])), Resources())
    if distributed.rank() == 0:
        plain = [{"failed": str(result) or repr(result)} if isinstance(result, Exception) else result for result in found]
        atomic.write(place / "results.json", json.dumps(plain))
    if world_size(trainer) > 1:
        distributed.end()


def _log_to(logs: Sequence[str] | None) -> None:
    """Rank 0 logs as a group in the launcher's own process does."""
    handlers = [logging.StreamHandler(sys.stdout), *map(logging.FileHandler, logs or [])]
    logging.basicConfig(
        level=logging.WARNING if logs is None else logging.INFO, handlers=handlers, force=True,
        format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
    )


def _end_with(launcher: int, agent: int) -> None:
    """End this rank when the launcher or torch.distributed.run is gone, killed or not."""
    while os.getppid() == agent:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            break
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
