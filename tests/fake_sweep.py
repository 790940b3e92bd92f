"""Fake sweeps for pareto.html: plausible numbers from a seeded generator, without training."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from saesweep.report import page
from saesweep.report.compare import compare
from saesweep.storage import sweep_table
from saesweep.storage.files import job_name

LEVEL = {"jumprelu": 0.998, "topk": 1.0, "gated": 1.06, "relu": 1.5, "batchtopk": 1.01}
METRICS = ("fvu", "delta_loss")
FAILED = "loss is nan after 20,480 tokens: lower arch.optimizer.lr\nTraceback of the step"
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


class Sweep:
    """The table (df), comparison and details of a sweep over sites, layers, archs, sparsities and seeds."""

    def __init__(
        self, sites=("resid",), layers=(9,), archs=("jumprelu", "topk", "gated"), sparsities=(16, 32, 64), seeds=1, **more
    ):
        """more: `failed` and `unfinished`, numbers of such SAEs; `limit`, the number of all SAEs; `lm`, whether there is a
        language model's loss; `latents` per SAE; `fixed`, archs with a fixed coefficient."""
        self.rng = np.random.default_rng(0)
        combos = list(product(["gemma3_270m"], sites, layers, sparsities, archs, range(seeds)))
        kept = sorted(self.rng.permutation(len(combos))[: more.get("limit")])
        combos = [combos[i] for i in kept]
        order = self.rng.permutation(len(combos))
        failed, unfinished = more.get("failed", 0), more.get("unfinished", 0)
        self.states = np.array(["finished"] * len(combos), dtype=object)
        self.states[order[:failed]] = "failed"
        self.states[order[failed : failed + unfinished]] = "unfinished"
        self.lm, self.latents, self.fixed = more.get("lm", True), more.get("latents", 4096), more.get("fixed", ())
        rows = [self._row(*combo, state) for combo, state in zip(combos, self.states, strict=True)]
        self.df = pd.DataFrame(rows)
        self.details = [self._details(row) for row in rows]
        self.comparison = compared(self.df)

    def _row(self, model, site, layer, sparsity, arch, seed, state):
        factor = {"resid": 1.0, "mlp": 1.6, "attn": 1.3}.get(site, 1.0) * (1 + layer / 40)
        fvu = 0.1 * (32 / sparsity) ** 0.34 * LEVEL.get(arch, 1.1) * factor * self.rng.normal(1, 0.004)
        loss = 0.35 * (32 / sparsity) ** 0.6 * LEVEL.get(arch, 1.1) ** 2 * factor * self.rng.normal(1, 0.02)
        l0 = sparsity * (1 if arch == "topk" else self.rng.normal(1, 0.012))
        numbers = {"coefficient": None if "topk" in arch else 1e-3 / sparsity, "l0": l0, "fvu": fvu, "mse": fvu * 0.97,
                   "cosine": 1 - fvu / 2, "relative_reconstruction_bias": 0.9 if arch == "relu" else 0.995,
                   "dead": 0.0 if seed else 0.01, "frequency_over_1pct": 0.1, "frequency_over_10pct": 0.01,
                   "firings_over_10pct": 0.3, "frequency_max": 0.6, "frequency_of_firings": 0.12}
        if self.lm:
            numbers |= {
                "ce_clean": 2.5,
                "ce_sae": 2.5 + loss,
                "ce_zero": 12.0,
                "ce_mean": 10.0,
                "delta_loss": loss,
                "loss_recovered": 1 - loss / 9.5,
            }
        if state != "finished":
            numbers = {}
        tokens = {"finished": 300_032, "failed": 20_480, "unfinished": 120_320}[state]
        target = {"sparsity": sparsity}
        if arch in self.fixed:
            target = {"sparsity": math.nan, "coefficient": 1e-3 / sparsity}
        path = f"{model}/{site}.{layer}/{arch}/{job_name(sparsity, target.get('coefficient'), seed)}"
        names = {"model": model, "site": site, "layer": layer, "arch": arch, "sparsity": sparsity, "seed": seed}
        empty = dict.fromkeys([*sweep_table.METRICS, "coefficient"], math.nan)
        sizes = {"d_in": 640, "d_sae": self.latents, "tokens": tokens, "unique_tokens": tokens if numbers else math.nan,
                 "sinks": 12 if numbers else math.nan}
        return {
            **names,
            **sizes,
            **empty,
            **numbers,
            **target,
            "state": state,
            "on_front": bool(numbers) and arch == "jumprelu",
            "path": path,
        }

    def _details(self, row):
        config = {f"group{i % 8}.key{i}": i / 7 for i in range(74)} | {"trainer.accelerator": "cpu", "model.revision": None}
        config |= {
            "arch.name": row["arch"],
            "sparsity": row["sparsity"],
            "seed": row["seed"],
            "site.name": row["site"],
            "layer": row["layer"],
        }
        if row["arch"] == "jumprelu":
            config["arch.warm_start"] = 0.5
        tokens = np.arange(1, 1 + row["tokens"] // 2048) * 2048
        progress = tokens / 300_000
        curve = pd.DataFrame(
            {"tokens": tokens, "l0": 32 * (1 + 9 * np.exp(-8 * progress)), "fvu": 0.1 + 0.9 * np.exp(-6 * progress)}
        )
        done = row["state"] == "finished"
        rates = np.where(self.rng.random(self.latents) < 0.03, 0, 10 ** self.rng.normal(-2.6, 0.6, self.latents).clip(-4.2, 0))
        command = (
            f"python train.py name=fake model={row['model']} site={row['site']} layer={row['layer']} arch={row['arch']} "
            f"sparsity={row['sparsity']} seed={row['seed']} tokens=300_000 'text.glob=data/*.jsonl'"
        )
        url = "https://wandb.ai/someone/fake/runs/abc123" if done and row["seed"] == 0 else None
        reason = FAILED if row["state"] == "failed" else None
        return sweep_table.Details(command, config, curve, rates if done else None, url, reason)


def compared(df):
    """The content of pareto.json; it has intervals if there are several seeds."""
    failed = [{"path": path, "reason": FAILED} for path in df.loc[df["state"] == "failed", "path"]]
    unfinished = df.loc[df["state"] == "unfinished", ["path", "tokens"]].to_dict("records")
    return compare(df, [None] * len(df)) | {"failed": failed, "unfinished": unfinished}


def sweep_of_200():
    archs, sparsities = ("jumprelu", "topk", "gated", "relu", "batchtopk"), (16, 32, 64)
    return Sweep(("resid", "mlp", "attn"), (5, 9, 13), archs, sparsities, seeds=2, limit=200, failed=6, unfinished=5)


def write(folder: Path, sweep: Sweep, name: str = "fake") -> Path:
    file = folder / "pareto.html"
    file.write_text(page.html(sweep.df, sweep.comparison, sweep.details, name), encoding="utf-8")
    return file
