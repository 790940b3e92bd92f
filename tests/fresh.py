"""What a newly started Python finds, once for all workers: tests of imports, and of what must not differ between processes.

    python tests/fresh.py FOLDER      writes FOLDER/found.json: the lines of main(), one after the other
"""
import json
import os
import subprocess
import sys
from pathlib import Path

CONF = Path(__file__).parents[1] / "conf"
TEXTS = [f"document {i}: " + "lorem ipsum dolor " * (i % 7 + 1) for i in range(100)]


def start(folder: Path) -> None:
    """Strings have other hashes than in the process that starts it."""
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS))
    (folder / "logged").mkdir()
    subprocess.run([sys.executable, __file__, str(folder)], env=os.environ | {"PYTHONHASHSEED": "77"}, check=True)


def main(folder: Path) -> dict[str, object]:
    return {
        "lightning after the checks": checks(), "wandb after the csv logger": csv_logger(folder / "logged"),
        "tiny": tiny(), "order": order(folder / "text.jsonl"),
    }


def checks() -> bool:
    import saesweep.sweep.preflight
    import saesweep.sweep.single_job  # noqa: F401

    return "lightning" in sys.modules


def csv_logger(folder: Path) -> bool:
    from saesweep.loggers.identity import MemberInfo
    from saesweep.loggers.sweep_logger import SweepLogger

    logger = SweepLogger([MemberInfo(folder, {}, "s", "lm", "resid", 9, "topk", 32, 0)], {"csv": {}})
    logger.log_member(0, {"l0": 1.0}, 5)
    logger.finish(0, {"l0": 1.0}, None)
    return "wandb" in sys.modules


def tiny() -> float:
    """The sum of all weights, whatever was drawn before."""
    import torch
    from omegaconf import OmegaConf

    from saesweep.lm.models import load

    torch.manual_seed(5)
    module = load(OmegaConf.load(CONF / "model/tiny.yaml")).module
    return sum(p.double().abs().sum() for p in module.parameters()).item()


def order(file: Path) -> list[str]:
    from omegaconf import OmegaConf

    from saesweep.data.text import Corpus

    text = OmegaConf.load(CONF / "text/files.yaml")
    text.glob = str(file)
    return list(Corpus(text, 3).one_pass("train"))


if __name__ == "__main__":
    (Path(sys.argv[1]) / "found.json").write_text(json.dumps(main(Path(sys.argv[1]))))
