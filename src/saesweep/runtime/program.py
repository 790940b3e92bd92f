"""How the program was called and where its conf/ and sweeps/ are: in a checkout, or inside the installed package."""
import os
from pathlib import Path

INSTALLED = "SAESWEEP_PROGRAM"  # set where the installed program was called; the ranks of a group inherit it
ROOT = "SAESWEEP_ROOT"  # the folder that holds conf/ and sweeps/, for the search path
IN_A_CHECKOUT = {
    "train": "python train.py",
    "pareto": "python -m saesweep.report.pareto",
    "dashboard": "python -m saesweep.report.dashboard",
    "join": "python -m saesweep.sweep.engines.join",
}


def called(command: str) -> str:
    """How the user types a command here: `saesweep train`, or `python train.py` in a checkout."""
    is_program = INSTALLED in os.environ or not (root() / "train.py").is_file()
    return f"saesweep {command}" if is_program else IN_A_CHECKOUT[command]


def conf_folders(root: Path) -> list[Path]:
    """The conf/ of the program and, where the installed program was called, the user's own in the working directory."""
    own = Path.cwd() / "conf"
    return [root / "conf", *([own] if INSTALLED in os.environ and own.is_dir() and own != root / "conf" else [])]


def root() -> Path:
    """The folder that holds conf/ and sweeps/: the package itself in a wheel, the checkout in an editable install."""
    package = Path(__file__).parents[1]
    return package if (package / "conf").is_dir() else package.parents[1]
