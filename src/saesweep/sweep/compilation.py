"""The CPU's loops are compiled by a process of its own while a sweep is prepared: the first time takes 10 to 20 s."""
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from saesweep import arch
from saesweep.sweep.jobs import Job

LOOPS = Path(arch.__file__).parent / "ops" / "kernels.py"
_process: subprocess.Popen | None = None


@contextmanager
def compiling(jobs: Sequence[Job]) -> Iterator[None]:
    """What that process does not get done is compiled where it is needed, so how it ends does not matter."""
    global _process
    if not _compiled() and any((job.settings.get("trainer") or {}).get("accelerator") == "cpu" for job in jobs):
        quiet = subprocess.DEVNULL
        command = [sys.executable, "-m", "saesweep.arch.ops.precompile"]
        _process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        if _process is not None:
            _process.kill()
            _process.wait()
        _process = None


def wait() -> None:
    """Until it is done: to compile the same beside it would take longer."""
    if _process is not None:
        _process.wait()


def _compiled() -> bool:
    """Numba's cache, where it is at its usual place, has the loop that is compiled last."""
    last = (LOOPS.parent / "__pycache__").glob("kernels.adam_rows-*.nbi")
    return any(file.stat().st_mtime > LOOPS.stat().st_mtime for file in last)
