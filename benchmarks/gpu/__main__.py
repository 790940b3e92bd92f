"""What is worth knowing of a GPU, in at most 10 minutes: python -m benchmarks.gpu [--seconds 600] [--out DIR] [--sections a b].

The sections run in the order of sizes.yaml, the most valuable first, each in its share of the time. After every row
DIR/report.md and DIR/report.json are written anew, so that a kill loses only the measurement in progress. The sections run
in a process of their own: where one of them crashes it, hangs or leaves the GPU unusable, another process goes on with the
next one. --dry-run runs all of them on the CPU at toy sizes.
"""
from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu import report
from benchmarks.gpu.sizes import SECTIONS

NO_GPU = 4  # exit code of a worker
POLL = 0.2  # seconds
WORKER = ("-m", "benchmarks.gpu.worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="these alone; kernels needs no GPU")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, at toy sizes")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the worker is ended too
    names = args.sections or [name for name, section in SECTIONS.items() if section["usual"]]
    with tempfile.TemporaryDirectory() as folder:
        found = supervise(names, Path(folder), time.time() + args.seconds, args.dry_run, args.out)
    print(f"{args.out / 'report.md'}: " + ", ".join(f"{section['name']} {section['status']}" for section in found))


def supervise(names: list[str], folder: Path, until: float, dry_run: bool, out: Path) -> list[dict]:
    """Run the sections, one worker after the other; their results, in order."""
    left = list(names)
    while left and time.time() < until:
        code = _run_worker(left, names, folder, until, dry_run, out)
        if code == NO_GPU:
            raise SystemExit("no GPU is available to torch: run it where there is one, or with --dry-run")
        done = report.read(folder, left)
        if not done or done[-1]["status"] == "running":
            name = left[len(done) - 1 if done else 0]
            over = time.time() >= until
            report.stopped(folder, name, "no time was left" if over else f"the process of the section ended with code {code}")
        left = left[len(report.read(folder, left)) :]
    for name in left:
        report.stopped(folder, name, "no time was left", status="not reached")
    return report.write(folder, names, out)


def _run_worker(left: list[str], names: list[str], folder: Path, until: float, dry_run: bool, out: Path) -> int:
    words = ["--into", str(folder), "--until", str(until), *(["--dry-run"] if dry_run else []), *left]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if dry_run else {})  # threads that wait for each other take longest
    worker = subprocess.Popen([sys.executable, *WORKER, *words], start_new_session=True, env=environment)
    try:
        while worker.poll() is None and time.time() < min(until, report.overdue(folder, left)):
            time.sleep(POLL)
            report.write(folder, names, out)
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
    return worker.wait()


if __name__ == "__main__":
    main()
