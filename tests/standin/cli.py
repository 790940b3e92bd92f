"""The command line a user types, in this process, with the stand-in for the training."""
import functools
import logging
import os
import pickle
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from standin import run

import hydra_plugins.saesweep.sources  # noqa: F401 before a fixture of Hydra notes the resolvers that it will restore
import saesweep.sweep

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": str(ROOT / "src")}  # of the real command line, in a process of its own
ALWAYS = ("model=standin", "text=standin", "logger=csv")


class Ended(NamedTuple):
    code: int
    error: str  # of sys.exit


def train(*words: str) -> Ended:
    """`python train.py WORDS` with the stand-in for the training; what it prints is captured by pytest."""
    given = {word.split("=")[0] for word in words}
    try:
        return _ended(lambda: run.main([*words, *(word for word in ALWAYS if word.split("=")[0] not in given)]))
    finally:
        for name in ("group", "probe"):
            sys.modules.pop(f"saesweep.sweep.{name}")
            delattr(saesweep.sweep, name)


def train_for_real(*words: str) -> Ended:
    """`python train.py WORDS` in this process; what it prints is captured by pytest."""

    def main() -> None:
        sys.argv = [str(ROOT / "train.py"), *words]
        runpy.run_path(sys.argv[0], run_name="__main__")

    return _ended(main)


def _ended(main: Callable[[], None]) -> Ended:
    """What it changes in the process is put back."""
    before = dict(os.environ), list(sys.argv), logging.root.handlers[:]
    try:
        main()
        return Ended(0, "")
    except SystemExit as end:
        return Ended(end.code or 0, "") if not isinstance(end.code, str) else Ended(1, end.code)
    finally:
        GlobalHydra.instance().clear()
        os.environ.clear()
        os.environ.update(before[0])
        sys.argv[:], logging.root.handlers[:] = before[1:]


def composed(*words: str, always: tuple[str, ...] = ALWAYS, whole: bool = False) -> DictConfig:
    """The config of one job, as main gets it; `whole`: with Hydra's own node. From each folder the same words are composed
    once."""
    return pickle.loads(_composed((*always, *words), whole, Path.cwd()))


@functools.cache
def _composed(words: tuple[str, ...], whole: bool, _folder: Path) -> bytes:
    hydra.version.setbase("1.3")
    where = f"hydra.searchpath=[file://{ROOT}/tests/standin/conf]"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return pickle.dumps(compose("train", [where, *words], return_hydra_config=whole))


class Seen(Callback):
    """Notes the jobs that Hydra's callbacks hear of."""

    started: list[str] = []  # noqa: RUF012
    ended: list[str] = []  # noqa: RUF012

    def on_job_start(self, config, **_):
        self.started.append(config.arch.name)

    def on_job_end(self, config, job_return, **_):
        self.ended.append(f"{config.arch.name} {job_return.status.name}")
