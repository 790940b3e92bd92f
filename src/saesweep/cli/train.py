"""`saesweep train` and `python train.py`: Hydra composes the configuration, then the work starts."""
import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.runtime import program
from saesweep.sweep.hydra_errors import one_line_errors


def train(cfg: DictConfig) -> dict | None:
    from saesweep.sweep.single_job import train

    return train(cfg)


def main(root: Path | None = None) -> None:
    """root: the folder that holds conf/ and sweeps/; None: where the package has them."""
    root = root or program.root()
    os.environ[program.ROOT] = str(root)
    if "--schema" in sys.argv[1:]:
        from saesweep.config.json_schema import print_schema

        print_schema(*(folder / "conf" for folder in (root, program.own_folder(root)) if folder))
        return
    with one_line_errors():
        hydra.main(version_base="1.3", config_path=str(root / "conf"), config_name="train")(train)()

