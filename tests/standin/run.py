"""Stands in for saesweep.sweep.group and .probe: leaves what a training leaves, in no time. As a script: train.py with it."""

import json
import logging
import runpy
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from saesweep.config import input_schema
from saesweep.errors import TrainingFailed, UsageError

ROOT = Path(__file__).parents[2]
log = logging.getLogger(__name__)
input_schema.TEXTS["standin"] = Mapping  # a text like no other


def train_group(jobs, folders, resources):
    text = jobs[0]["text"]
    log.info(f"training {len(jobs)} SAEs")
    if text["mistake"]:
        raise UsageError("text=standin: too short")
    print("started", flush=True)
    end = time.monotonic() + text["sleep"]
    while time.monotonic() < end:  # a signal that comes just before a sleep is answered after it
        time.sleep(0.1)
    return [_one(job, folder) for job, folder in zip(jobs, folders, strict=True)]


def _one(job, folder):
    if job["arch"]["name"] == job["text"]["fail"]:
        return RuntimeError("not finite")
    if job["text"]["diverge"]:
        return TrainingFailed("flat/8: mse not finite after 640 tokens")
    numbers = {
        "l0": float(job["sparsity"]), "fvu": 1 / job["sparsity"], "tokens": job["tokens"], "d_in": 8, "d_sae": job["width"],
    }
    (folder / "sae").mkdir()
    with (folder / "metrics.csv").open("a") as curve:
        curve.write("tokens,fvu\n")
    (folder / "eval.json").write_text(json.dumps(numbers))
    return numbers


def estimate(jobs, resources, folder):
    params = [job["width"] * 16 for job in jobs]
    held = {"sae_bytes": [12 * n for n in params], "places": [], "unmeasured": 0, "no_loss": None}
    return {"d_in": [8] * len(jobs), "params": params, "seconds": 90.0, **held}


def main(words):
    import saesweep.sweep

    for name in ("group", "probe"):
        sys.modules[f"saesweep.sweep.{name}"] = sys.modules[__name__]
        setattr(saesweep.sweep, name, sys.modules[__name__])
    sys.argv = [str(ROOT / "train.py"), "--config-dir", str(ROOT / "tests/standin/conf"), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main([*sys.argv[1:], "model=standin", "text=standin"])
