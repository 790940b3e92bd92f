"""The command line: `python train.py --help`. No logic here, and nothing heavy is imported before the work starts."""
import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.sweep.hydra_errors import one_line_errors

os.environ["SAESWEEP_ROOT"] = str(Path(__file__).resolve().parent)  # where `sweeps=` is looked up, whatever the cwd


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> dict | None:
    from saesweep.sweep.single_job import train

    return train(cfg)


if __name__ == "__main__":
    if "--schema" in sys.argv[1:]:
        from saesweep.config.json_schema import print_schema

        print_schema(Path(__file__).resolve().parent / "conf")
        sys.exit()
    with one_line_errors():
        main()
