"""The real command line in a process of its own that starts soon: a fork of one that has imported the libraries already.

That one has imported nothing of saesweep and started no thread of torch; folder, environment, arguments and output of the
fork are those it is given. What is about a terminal, a signal or W&B, whose service outlives the program, takes
`subprocess`.
"""
import atexit
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
OURS = ("", str(ROOT), str(ROOT / "src"), str(ROOT / "tests"))
_context = multiprocessing.get_context("forkserver")
READY = ["pytest", "hydra", "numba.typed", "lightning", "transformers.modeling_utils", "datasets", "wandb", "matplotlib.pyplot"]
_context.set_forkserver_preload(READY)


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Started(_context.Process):
    """`words`: as for subprocess, with python and a script first."""

    def __init__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str]):
        self.folder = Path(tempfile.mkdtemp())
        self.files = [self.folder / name for name in ("stdout", "stderr")]
        for file in self.files:
            file.touch()  # it may be killed before it could
        what = (list(words[1:]), str(cwd), dict(env), list(map(str, self.files)))
        super().__init__(target=_become, args=what, daemon=True)
        self.start()

    def end(self, seconds: float | None = None) -> Ended | None:
        """What it left, once it has ended; None where it has not after so many seconds."""
        self.join(seconds)
        if self.exitcode is None:
            return None
        told = [file.read_text() for file in self.files]
        shutil.rmtree(self.folder)
        return Ended(self.exitcode, *told)


def ready() -> None:
    """Wait until the imports are done: for who times what comes then."""
    process = _context.Process(target=int)
    process.start()
    process.join()


def run(words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Ended:
    return Started(words, cwd, env).end()


def _become(words: list[str], cwd: str, env: dict[str, str], files: list[str]) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = words
    own = [str(Path(words[0]).parent), *filter(None, env.get("PYTHONPATH", "").split(":"))]
    sys.path[:] = [*own, *(place for place in sys.path if place not in OURS)]
    sys.modules.pop("warm", None)
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a fork would leave without
