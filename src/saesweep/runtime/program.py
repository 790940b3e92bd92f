"""How the program was called and where its conf/ and sweeps/ are: in a checkout, or inside the installed package."""
import os
from pathlib import Path

INSTALLED = "SAESWEEP_PROGRAM"  # set where the installed program was called; the ranks of a group inherit it
ROOT = "SAESWEEP_ROOT"  # the folder that holds conf/ and sweeps/, for the search path


def called(command: str) -> str:
    """What the user types for a command: `saesweep pareto`; for train in a checkout, `python train.py`."""
    in_checkout = INSTALLED not in os.environ and (root() / "train.py").is_file()
    return "python train.py" if command == "train" and in_checkout else f"saesweep {command}"


def own_folder(root: Path) -> Path | None:
    """The working directory, whose conf/ and sweeps/ the installed program reads too; None in a checkout and at the root."""
    here = Path.cwd()
    return here if INSTALLED in os.environ and here != root else None


def root() -> Path:
    """The folder that holds conf/ and sweeps/: the package itself in a wheel, the checkout in an editable install."""
    package = Path(__file__).parents[1]
    return package if (package / "conf").is_dir() else package.parents[1]
