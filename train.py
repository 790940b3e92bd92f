"""The command line: `python train.py --help`. No logic here, and nothing heavy is imported before the work starts."""
import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

os.environ["SAESWEEP_ROOT"] = str(Path(__file__).resolve().parent)  # where `sweeps=` is looked up, whatever the cwd
# Read when torch is imported. Threads that spin for long while they wait are 7 times slower beside one other busy process.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # the same of numpy's


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> dict | None:
    from saesweep.sweep.single import train

    return train(cfg)


if __name__ == "__main__":
    main()
