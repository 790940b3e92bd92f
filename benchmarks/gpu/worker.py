"""The process that runs sections one after the other; started by __main__, and again where it dies."""
from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

import torch

from benchmarks import common
from benchmarks.gpu import sizes
from benchmarks.gpu.__main__ import NO_GPU
from benchmarks.gpu.section import Section, usable

BROKEN = 3  # exit code: the GPU is unusable for this process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--until", type=float)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("names", nargs="+")
    args = parser.parse_args()
    device = "cpu" if args.dry_run or args.names == ["kernels"] else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(NO_GPU)
    common.prepare()
    for position, name in enumerate(args.names):
        left = [sizes.SECTIONS[one]["seconds"] for one in args.names[position:]]
        section = run(name, args.dry_run, device, (args.until - time.time()) * left[0] / sum(left), args.into)
        if not usable(section.device):
            sys.exit(BROKEN)


def run(name: str, dry_run: bool, device: str, seconds: float, folder: Path) -> Section:
    """One section; what it raises is in its results."""
    module = importlib.import_module(f"benchmarks.gpu.{name}")
    title = (module.__doc__ or "").split("\n")[0].rstrip(".")
    section = Section(name, title, sizes.of_section(name, dry_run), device, seconds, folder)
    try:
        module.run(section)
    except Exception as error:
        section.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
    section.end()
    return section


if __name__ == "__main__":
    main()
