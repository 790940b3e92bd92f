"""Compile the CPU kernels in another process while a sweep is prepared: the first compilation takes 10 to 20 s."""
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from saesweep import arch
from saesweep.sweep.jobs import Job

KERNELS = Path(arch.__file__).parent / "ops" / "kernels.py"
_process: subprocess.Popen | None = None


@contextmanager
def compiling(jobs: Sequence[Job]) -> Iterator[None]:
    """Compile within the block if the kernels are not cached; what is not done at its end is compiled where it is needed."""
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


def is_running() -> bool:
    return _process is not None and _process.poll() is None


def wait() -> None:
    """Wait for the compilation: compiling the same twice at once takes longer."""
    if _process is not None:
        _process.wait()


def _compiled() -> bool:
    """Whether Numba's cache, at its usual place, has the kernel that is compiled last."""
    last = (KERNELS.parent / "__pycache__").glob("kernels.adam_rows-*.nbi")
    return any(file.stat().st_mtime > KERNELS.stat().st_mtime for file in last)
