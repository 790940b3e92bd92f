"""The README's sweep, against SAELens, which trains the same nine SAEs one by one: python -m benchmarks.sweep.

The time of saesweep is that of the whole command, from start to figure, with evaluation. The time of SAELens is computed
from the rates of its ActivationsStore and of its trainer for each architecture, one after the other as in its runner, on
the same model, tokens, width and batch size; its loading and evaluation are not counted.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks import common, peers
from benchmarks.step import start_threshold
from saesweep.data.text import Corpus, blocks
from saesweep.lm import models
from saesweep.lm.models import LanguageModel

ARCHS, SPARSITIES = ("jumprelu", "gated", "topk"), (16, 32, 64)
ROOT = Path(__file__).resolve().parents[1]


def ours(overrides: list[str]) -> float:
    """Seconds that the command takes in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "train.py"), "-m", *overrides]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def store(lm: LanguageModel, layer: int, batch: int, context: int):
    """SAELens' activations of the same tokenised text, with a buffer small enough to time."""
    from datasets import Dataset
    from sae_lens.load_model import HookedProxyLM
    from sae_lens.training.activations_store import ActivationsStore

    text = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/text/python_stdlib.yaml"))
    whole = (block for block in blocks(Corpus(text, 0).documents("train"), lm.tokenizer, context) if block.min() >= 0)
    dataset = Dataset.from_dict({"input_ids": [block.tolist() for block in islice(whole, 2000)]})
    hook = f"model.layers.{layer}"
    return ActivationsStore(
        HookedProxyLM(lm.module, _NoTokenizer(), hook_names=[hook]), dataset,
        streaming=False, hook_name=hook, hook_head_index=None, context_size=context, d_in=lm.module.config.hidden_size,
        n_batches_in_buffer=2, total_training_tokens=10**7, store_batch_size_prompts=16, train_batch_size_tokens=batch,
        prepend_bos=False, normalize_activations="none", device=torch.device("cpu"), dtype="float32",
    )


class _NoTokenizer:
    """The dataset is already tokenised."""

    bos_token_id = eos_token_id = sep_token_id = None


def theirs(tokens: int, width: int, batch: int, context: int, precisions: Sequence[str]) -> float:
    """Seconds for the nine SAEs, computed from the rates of harvest and step."""
    model = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/model/gemma3_270m.yaml"))
    source = store(models.load(model), model["layer"], batch, context)
    harvests = common.round_robin({"SAELens harvest": lambda: source.get_activations(source.get_batch_tokens())}, rounds=5)
    harvest = common.median(harvests, "SAELens harvest") / (16 * context)
    x = torch.randn(batch, 640)
    total = 0.0
    for arch in ARCHS:
        for k in SPARSITIES:
            threshold = start_threshold(x, torch.nn.functional.normalize(torch.randn(width, 640)), k)
            steps = {p: peers.sae_lens(arch, 640, width, k, threshold, p == "bf16") for p in precisions}
            times = common.round_robin({p: lambda s=s: s(x) for p, s in steps.items()}, rounds=5)
            step = min(common.median(times, p) for p in steps) / batch
            total += tokens * (harvest + step)
            print(f"SAELens {arch}, L0 {k}: harvest {1 / harvest:,.0f} tokens/s, step {1 / step:,.0f} tokens/s", flush=True)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=["arch=jumprelu,gated,topk", "sparsity=16,32,64"])
    parser.add_argument("--tokens", type=int, default=300_000, help="of each SAE, by both")
    parser.add_argument("--precision", nargs="+", default=peers.PRECISIONS, help="of SAELens' trainer")
    args = parser.parse_args()
    cfg = OmegaConf.load(ROOT / "conf/train.yaml")
    common.prepare()
    print(common.machine(), flush=True)
    mine = ours([*args.overrides, f"tokens={args.tokens}"])
    print(f"saesweep: {mine:,.0f} s for nine SAEs, evaluated", flush=True)
    others = theirs(args.tokens, cfg.width, cfg.batch_tokens, cfg.context, args.precision)
    print(f"SAELens, one by one: {others:,.0f} s for nine SAEs\n{others / mine:.1f} times faster")


if __name__ == "__main__":
    main()
