"""What the latents of finished SAEs mean.

    saesweep study outputs/default
    saesweep study outputs/a outputs/b --out outputs/both tokens=1_000_000 features=1000

reads held-out text once for all SAEs of the sweeps, and keeps of each what pages, scores, judges and people look at, in its
folder below study/. Settings are those of conf/study/rules.yaml, as key=value. Several processes share the work when they are
started by `torchrun --nproc-per-node=N -m saesweep.study ...`.
"""
import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.errors import UsageError
from saesweep.runtime import program, signals
from saesweep.study.settings import settings


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=program.called("study"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="FOLDER or key=value", help="sweeps such as outputs/default; settings")
    parser.add_argument("--out", help="folder of the report; several sweeps need one")
    words = parser.parse_intermixed_args()
    sweeps = [Path(word) for word in words.words if "=" not in word or Path(word).is_dir()]
    given = [word for word in words.words if Path(word) not in sweeps] + ([f"out={words.out}"] if words.out else [])
    try:
        with ranks(), signals.exit_codes():
            _study(sweeps, given)
    except UsageError as error:
        sys.exit(str(error))


def _study(sweeps: list[Path], given: list[str]) -> None:
    if not sweeps:
        raise UsageError(f"{' '.join(given)}: name the folder of a sweep too, such as outputs/default")
    found = settings(given)
    from saesweep.loggers import wandb_runs  # pandas
    from saesweep.study import plan, run  # torch

    if found["plan"]:
        print(plan.plan(sweeps, found))
        return
    result = run.run(sweeps, found)
    print(*result.lines, sep="\n")
    for command in filter(None, map(wandb_runs.sync_command, sweeps)):
        print(f"\nto upload the offline runs to W&B: {command}")
    if result.problem:
        sys.exit(result.problem)


@contextmanager
def ranks() -> Iterator[None]:
    """Join the others that torchrun has started."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    import torch

    from saesweep.runtime import distributed

    distributed.begin("gpu" if torch.cuda.is_available() else "cpu", ranks_share_saes=False)
    try:
        yield
    finally:
        distributed.end()


if __name__ == "__main__":
    main()
