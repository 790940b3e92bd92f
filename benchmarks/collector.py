"""The study's collector on made-up hits, alone and against two peers: python -m benchmarks.collector [--peer-python PATH].

PATH is the interpreter of an environment of its own that has eai-delphi or sae-dashboard (docs/benchmarks.md). Every
contestant is a process that takes turns with the others; CPU seconds stand beside those of the clock, which say little on
a machine that does other work.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import common

ROOT = Path(__file__).resolve().parents[1]
MB, CPU = 1e6, 1
ROWS, CONTEXT = 8192, 256  # tokens of a batch and of a sequence, as in delphi's defaults
PEERS = ("delphi", "SAEDashboard")
Stages = dict[str, list[float]]  # stage -> seconds by the clock, seconds of CPU


class Process:
    """A contestant; it imports and compiles while others do."""

    def __init__(self, *command: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        self.name, self.said = command[-1], tempfile.TemporaryFile("w+")  # noqa: SIM115 a pipe would fill and block it
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True)

    def __call__(self, **arguments: object) -> dict | None:
        """None: it has failed."""
        sizes = ", ".join(f"{key} {value:,}" for key, value in arguments.items() if isinstance(value, int))
        common.progress(f"{self.name}: {sizes}")
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps(arguments), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            return None

    def end(self) -> str:
        """The last line of its messages."""
        self.process.communicate()
        self.said.seek(0)
        lines = self.said.read().strip().splitlines()
        return lines[-1] if lines else ""


def ours(job: str) -> Process:
    return Process(sys.executable, "-m", "benchmarks.collector_ours", job)


def growth(widths: Sequence[int], l0s: Sequence[int], saes: int, hits: int, rounds: int) -> None:
    """Time and memory by width, by L0, and for several SAEs at once."""
    process, width, l0 = ours("sparse"), widths[len(widths) // 2], l0s[len(l0s) // 2]
    sizes = dict.fromkeys([*((one, l0, 1) for one in widths), *((width, one, 1) for one in l0s), (width, l0, saes)])
    found: dict[tuple, list[dict]] = {size: [] for size in sizes}
    print(f"\n{hits:,} hits in each half of each SAE; medians of {rounds} rounds, one of several SAEs\n")
    print("| width | L0 | SAEs | ns a hit: CPU (clock) | tokens a CPU second | state, MB | lists, MB | measured, MB "
          "| with files, MB |")
    print("| --- " * 9 + "|", flush=True)
    for number in range(rounds):
        for size, answers in found.items():
            if size[2] > 1 and number < rounds - 1:
                continue
            arguments = dict(zip(("width", "l0", "saes"), size, strict=True))
            if (answer := process(**arguments, tokens=max(1, hits // size[1]))) is None:
                sys.exit(process.end())
            answers.append(answer)
            if number == rounds - 1:
                print(_growth_row(size, answers), flush=True)
    process.end()


def _growth_row(size: Sequence[int], found: Sequence[dict]) -> str:
    one = found[0]
    clock, cpu = (statistics.median(answer["stages"]["collect"][at] for answer in found) for at in range(2))
    memory = " | ".join(f"{one[key] / MB:,.0f}" for key in ("state", "lists", "collected", "written"))
    return (f"| {size[0]:,} | {one['hits'] / one['tokens']:.0f} | {size[2]} | {1e9 * cpu / one['hits']:.0f} "
            f"({1e9 * clock / one['hits']:.0f}) | {one['tokens'] / cpu:,.0f} | {memory} |")


def contest(width: int, l0: int, hits: int, latents: int, rounds: int, python: str | None) -> None:
    """One SAE's dense latents, from which each contestant keeps what it keeps, and shows some latents."""
    processes = [ours("dense"), *(Process(python, "-m", "benchmarks.collector_peers", peer) for peer in PEERS if python)]
    names = ["saesweep", *(PEERS if python else ())]
    wanted = np.random.default_rng(1).permutation(width)[:latents].tolist()
    size = {"width": width, "l0": l0, "batches": -(-hits // l0 // ROWS), "rows": ROWS, "context": CONTEXT}
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, process in zip(names, processes, strict=True):
            if name in found and (answer := process(**size, latents=wanted)):
                found[name].append(answer)
            elif found.pop(name, None) is not None:
                print(f"{name} failed: {process.end()}", flush=True)
    for name, process in zip(names, processes, strict=True):
        if name in found:
            process.end()
    tokens = size["batches"] * ROWS
    print(f"\nOne SAE of width {width:,}, {tokens:,} tokens, L0 about {l0}, examples of {latents} latents; CPU seconds "
          f"(clock), medians of {rounds} rounds\n")
    print("| | collect | times ours | write | examples | memory, MB | disk, MB | examples shown |\n" + "| --- " * 8 + "|")
    for name, answers in found.items():
        print(_contest_row(name, answers, found["saesweep"]), flush=True)


def _contest_row(name: str, answers: Sequence[dict], base: Sequence[dict]) -> str:
    """Times ours: the median over rounds of the ratio of CPU seconds to those of the same round."""
    ratio = statistics.median(_cpu(one) / _cpu(other) for one, other in zip(answers, base, strict=True))
    stages = [_seconds([one["stages"].get(stage) for one in answers]) for stage in ("collect", "write", "examples")]
    memory, disk = (max(one[key] for one in answers) / MB for key in ("peak", "disk"))
    return (f"| {name} | {stages[0]} | {ratio:.1f} | {stages[1]} | {stages[2]} | {memory:,.0f} | {disk:,.0f} "
            f"| {answers[0]['shown']:,} |")


def _cpu(answer: dict) -> float:
    return answer["stages"]["collect"][CPU]


def _seconds(times: Sequence[list[float] | None]) -> str:
    if None in times:
        return ""
    clock, cpu = (statistics.median(column) for column in zip(*times, strict=True))  # pyright: ignore
    return f"{cpu:.2f} ({clock:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[1024, 4096, 16384, 65536], help="the middle one: for all L0s")
    parser.add_argument("--l0", type=int, nargs="+", default=[16, 32, 64, 128], help="the middle one: for all widths")
    parser.add_argument("--saes", type=int, default=16, help="that are collected at once")
    parser.add_argument("--hits", type=int, default=1_000_000, help="in each half of each SAE")
    parser.add_argument("--latents", type=int, default=256, help="whose examples are shown")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", nargs="+", choices=["growth", "contest"], default=["growth", "contest"])
    parser.add_argument("--peer-python", help="an interpreter that can import delphi and sae_dashboard")
    args = parser.parse_args()
    print(common.machine(), flush=True)
    if "growth" in args.part:
        growth(args.width, args.l0, args.saes, args.hits, args.rounds)
    if "contest" in args.part:
        middle = args.width[len(args.width) // 2], args.l0[len(args.l0) // 2]
        contest(*middle, args.hits, min(args.latents, middle[0]), args.rounds, args.peer_python)


if __name__ == "__main__":
    main()
