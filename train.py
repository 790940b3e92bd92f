"""The command line in a checkout: `python train.py --help`. It is `saesweep train` with the conf/ and sweeps/ beside it."""
from pathlib import Path

from saesweep.cli.train import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
