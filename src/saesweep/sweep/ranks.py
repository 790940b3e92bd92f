"""A group on several devices: one process per device, started by torch.distributed.run; this process joins none of them.

Each rank gets the same composed configs from a file and calls the same function; rank 0 alone writes into the job
folders. Whatever ends this process or one of the ranks ends all: they are a session of their own, and watch for it.

    python -m saesweep.sweep.ranks PLACE      what each rank runs; PLACE holds
      group.json                              from the launcher: configs, folders, the function, its process id
      stop                                    from the launcher: save and end
      <rank>.error                            from a rank: what ended it
      results.json                            from rank 0: the numbers of each SAE, or what ended it
"""
from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from saesweep import signals
from saesweep.errors import UsageError
from saesweep.instantiate import locate
from saesweep.sweep.jobs import Job

log = logging.getLogger(__name__)
GRACE = 60.0  # seconds that ranks get to save once they were told to stop
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


class RankFailed(RuntimeError):
    """A rank ended otherwise than it should have."""


def world(trainer: Mapping[str, Any]) -> int:
    """How many ranks train a job."""
    devices = trainer.get("devices", 1)
    return len(devices) if isinstance(devices, list) else devices


def train(run: str, group: Sequence[Job]) -> list[dict[str, Any] | Exception]:
    """As the function itself, but on as many ranks as the jobs' trainer has devices."""
    with tempfile.TemporaryDirectory(prefix="saesweep-") as name:
        place = Path(name)
        request = {
            "run": run, "configs": [job.settings for job in group], "folders": [str(job.folder) for job in group],
            "launcher": os.getpid(), "logs": _log_files(),
        }
        (place / "group.json").write_text(json.dumps(request, default=str))
        count = world(group[0].settings["trainer"])
        command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", __name__, str(place)]
        process = subprocess.Popen([sys.executable, "-m", *command], env=_environment(count), start_new_session=True)
        try:
            process.wait()
        except (KeyboardInterrupt, SystemExit):
            (place / "stop").touch()
            _wait(process, GRACE)
            raise
        finally:
            _end(process)
        return _results(place, process.returncode)


def _environment(count: int) -> dict[str, str]:
    """Of the ranks: nothing of another launch, and the cores shared out."""
    kept = {key: value for key, value in os.environ.items() if key not in TORCHRUN}
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)} | kept


def _log_files() -> list[str]:
    return [handler.baseFilename for handler in logging.root.handlers if isinstance(handler, logging.FileHandler)]


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        log.warning("the ranks did not save within %.0f s: what was saved before is kept", seconds)


def _end(process: subprocess.Popen) -> None:
    """Nothing is left over."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _results(place: Path, code: int) -> list[dict[str, Any] | Exception]:
    if (place / "results.json").is_file():
        found = json.loads((place / "results.json").read_text())
        return [RuntimeError(result["failed"]) if "failed" in result else result for result in found]
    errors = sorted(place.glob("*.error"), key=lambda file: file.stat().st_mtime_ns)
    if not errors:
        raise RankFailed(f"a rank was killed; torch.distributed.run ended with {code}")
    error = json.loads(errors[0].read_text())  # the others only noticed
    if error["usage"]:
        raise UsageError(error["what"])
    raise RankFailed(f"rank {errors[0].stem} failed: {error['what']}\n{error['traceback']}")


def main(place: Path) -> None:
    request = json.loads((place / "group.json").read_text())
    threading.Thread(target=_end_with, args=(request["launcher"], os.getppid()), daemon=True).start()
    signals.watch(place / "stop")
    try:
        _rank(place, request)
    except Exception as error:
        content = {"what": f"{type(error).__name__}: {error}", "usage": False, "traceback": traceback.format_exc()}
        if isinstance(error, UsageError):
            content |= {"what": str(error), "usage": True}
        print(content["traceback"], file=sys.stderr, flush=True)
        (place / f"{os.environ['RANK']}.error").write_text(json.dumps(content))
        os._exit(1)  # at once: others may wait for this rank


def _rank(place: Path, request: Mapping[str, Any]) -> None:
    from saesweep import distributed

    trainer = request["configs"][0]["trainer"]
    distributed.begin(trainer["accelerator"], trainer["strategy"]["_target_"])
    _log_to(request["logs"] if distributed.reader() == 0 else None)
    function = locate(request["run"], "hydra.launcher.run")
    results = function([OmegaConf.create(config) for config in request["configs"]], list(map(Path, request["folders"])))
    if distributed.reader() == 0:
        plain = [{"failed": str(result)} if isinstance(result, Exception) else result for result in results]
        (place / "results.draft").write_text(json.dumps(plain))
        (place / "results.draft").rename(place / "results.json")
    distributed.end()


def _log_to(files: Sequence[str] | None) -> None:
    """Rank 0 tells what a group in one process tells."""
    from saesweep.sweep.finish import quiet_lightning

    quiet_lightning()
    handlers = [logging.StreamHandler(sys.stdout), *map(logging.FileHandler, files or [])]
    logging.basicConfig(
        level=logging.WARNING if files is None else logging.INFO, handlers=handlers, force=True,
        format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
    )


def _end_with(launcher: int, agent: int) -> None:
    """A launcher or a torch.distributed.run that was killed can end nobody."""
    while os.getppid() == agent:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            break
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
