"""Peers of the study's collector on the same made-up hits, in a process and environment of their own.

Only what they do with an SAE's dense latents is timed: the language model and the encoder are stand-ins, and making the
latents is not counted.
"""
from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import made_hits
from benchmarks.made_hits import Watch, draw
from saesweep.runtime.memory import keep_freed_memory

warnings.filterwarnings("ignore")


class Words:
    """A tokenizer that costs nothing."""

    def batch_decode(self, tokens: Tensor) -> list[str]:
        return ["word"] * len(tokens)


class Source(nn.Module):
    """A language model whose activations are the number of the batch."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.site(tokens)


def delphi(width: int, l0: int, batches: int, rows: int, context: int, latents: list[int]) -> dict:
    """LatentCache.run, save_splits, and LatentDataset: the windows of some latents, sampled by decile."""
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents import LatentCache, LatentDataset

    watch, numbers = Watch(), iter(range(batches))
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, (batches * rows // context, context)))

    def encode(_: Tensor) -> Tensor:
        with watch("collect", -1):
            return torch.from_numpy(draw(next(numbers), rows, width, l0).dense(width)).view(-1, context, width)

    made_hits.forget_peak()
    before = made_hits.resident()
    with tempfile.TemporaryDirectory() as folder:
        with watch("collect"):
            cache = LatentCache(Source(), {"site": encode}, batch_size=rows // context)
            cache.run(tokens.numel(), tokens)
        with watch("write"):
            cache.save_splits(n_splits=5, save_dir=Path(folder))
        (Path(folder) / "site/config.json").write_text(json.dumps({"model_name": "none", "ctx_len": context}))
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
        del cache
        with watch("examples"):
            found = LatentDataset(folder, SamplerConfig(), ConstructorConfig(min_examples=1), Words(), ["site"],
                                  {"site": torch.tensor(sorted(latents))})
            shown = sum(len(record.train) + len(record.test) + len(record.not_active) for record in found)
    return {"stages": watch.stages, "peak": made_hits.peak() - before, "disk": disk, "shown": shown}


class Encoder:
    """What SAEDashboard needs of an SAE: its masks leave in W_enc the numbers of the latents that are asked for."""

    hook_z_reshaping_mode, device, activation_fn = False, "cpu", None
    cfg = SimpleNamespace(architecture="standard", hook_name="blocks.0.hook_resid_post")

    def __init__(self, width: int, d_in: int, dense, watch: Watch) -> None:
        self.W_enc = nn.Parameter(torch.arange(width, dtype=torch.float32)[None])
        self.W_dec, self.b_enc = nn.Parameter(torch.randn(width, d_in)), nn.Parameter(torch.zeros(width))
        self.dense, self.watch = dense, watch

    def fold_W_dec_norm(self) -> None: ...

    def encode(self, x: Tensor) -> Tensor:
        with self.watch("collect", -1):
            return self.dense(x[..., 0].long(), self.W_enc[0].long())


class Model:
    """What it needs of a language model: each activation is the number of its token."""

    def __init__(self, tokens: int, d_in: int) -> None:
        self.hook_dict = {"blocks.0.hook_resid_post": SimpleNamespace(ctx={})}
        self.W_U, self.d_in = torch.randn(d_in, tokens), d_in

    def run_with_hooks(self, tokens: Tensor, stop_at_layer: int, fwd_hooks) -> None:
        for name, hook in fwd_hooks:
            hook(tokens[..., None].float().expand(*tokens.shape, self.d_in), hook=self.hook_dict[name])


def sae_dashboard(width: int, l0: int, batches: int, rows: int, context: int, latents: list[int]) -> dict:
    """SaeVisRunner for some latents: their activations on all tokens, and the data of their pages."""
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner

    watch, d_in, tokens, wanted = Watch(), 8, batches * rows, sorted(latents)
    column_of = torch.full((width,), -1)
    column_of[torch.tensor(wanted)] = torch.arange(len(wanted))
    known = torch.zeros(tokens, len(wanted))  # of these latents alone: what it is given is no part of its memory
    for number in range(batches):
        hits = draw(number, rows, width, l0)
        columns = column_of[torch.from_numpy(hits.columns)]
        mine = columns >= 0
        known[number * rows + torch.from_numpy(hits.rows)[mine], columns[mine]] = torch.from_numpy(hits.values)[mine]
    made_hits.forget_peak()
    before = made_hits.resident()
    encoder = Encoder(width, d_in, lambda at, features: known[at][..., column_of[features]], watch)
    config = SaeVisConfig(hook_point="blocks.0.hook_resid_post", features=wanted)
    with tempfile.TemporaryDirectory() as folder:
        with watch("collect"):
            data = SaeVisRunner(config).run(encoder, Model(tokens, d_in), torch.arange(tokens).view(-1, context))
        with watch("write"):
            data.save_json(file := Path(folder) / "data.json")
        disk = file.stat().st_size
    shown = sum(len(group.seq_data) for one in data.feature_data_dict.values() for group in one.sequence_data.seq_group_data)
    return {"stages": watch.stages, "peak": made_hits.peak() - before, "disk": disk, "shown": shown}


if __name__ == "__main__":
    keep_freed_memory()
    run = {"delphi": delphi, "SAEDashboard": sae_dashboard}[sys.argv[1]]
    run(width=256, l0=16, batches=1, rows=2048, context=128, latents=[0, 1, 2])  # imports, or fails at once
    made_hits.serve(run)
