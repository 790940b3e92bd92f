"""Nine SAEs that SAELens trains on the activations that the README's command trains on: python -m benchmarks.saelens_nine OUT.

One pass over the stream of that command (the same rows in the same order, centred and scaled) feeds SAELens' own trainers,
with its defaults: JumpReLU with the quadratic penalty on L0, whose target is 16, 32 and 64; Gated with three coefficients;
TopK. The normalisation is written into the weights, and each SAE is saved by SAELens, for `saesweep evaluate OUT/*/*`.
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks import common
from saesweep.data.resources import Resources
from saesweep.storage.checkpoints import Cohort
from saesweep.sweep import group_setup, inputs

ROOT = Path(__file__).resolve().parents[1]
SPARSITIES = (16, 32, 64)


def settings(words: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("train", ["arch=topk", *words]), resolve=True)


def stream_of(job: dict[str, Any]) -> group_setup.ActivationStream:
    resources, point = Resources(), inputs.point_of(job)
    part = group_setup.LocalGroup([job], [Path()], job, resources)
    return group_setup.prepared(part, inputs.inputs_of(job, [point], resources), Cohort(0, [0], [None]))[1]


def made(d_in: int, d_sae: int, l1: list[float]) -> dict[str, Any]:
    """The untrained SAEs, by the folder that each is saved in."""
    torch.manual_seed(0)
    sizes = {"d_in": d_in, "d_sae": d_sae}
    found: dict[str, Any] = {}
    for k, coefficient in zip(SPARSITIES, l1, strict=True):
        quadratic = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(k)}
        found[f"jumprelu/{k}"] = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**sizes, **quadratic))
        found[f"topk/{k}"] = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes, k=k))
        found[f"gated/{coefficient:g}"] = GatedTrainingSAE(GatedTrainingSAEConfig(**sizes, l1_coefficient=coefficient))
    return found


@torch.no_grad()
def fold_(sae: Any, mean: torch.Tensor, scale: float) -> None:
    """It was trained on (x - mean) / scale, and takes x from here on. Its b_dec is taken off its input."""
    assert sae.cfg.apply_b_dec_to_input
    sae.W_enc /= scale
    sae.W_dec *= scale
    sae.b_dec.mul_(scale).add_(mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the command, such as tokens=50_000")
    parser.add_argument("--l1", type=float, nargs=3, default=[3.8, 2.5, 1.8], help="of Gated: what ours ends with")
    args = parser.parse_args()
    common.prepare()
    job = settings(args.overrides)
    stream, point = stream_of(job), inputs.point_of(job)
    mean, scale = stream.statistics[point].mean.float(), float(stream.statistics[point].scale)
    unit = len(mean) ** 0.5  # SAELens' rows have this norm
    config = SAETrainerConfig(job["tokens"], job["batch_tokens"], lr_end=3e-5)
    trainers = {name: SAETrainer(config, sae, iter(())) for name, sae in made(len(mean), job["width"], args.l1).items()}
    start = time.monotonic()
    for number, batch in enumerate(stream, 1):
        for trainer in trainers.values():
            trainer.step(batch[point] * unit)
            trainer.n_training_steps += 1
        common.progress(f"{number} of {stream.steps} steps, {time.monotonic() - start:.0f} s")
    for name, trainer in trainers.items():
        sae, folder = trainer.sae, args.out / name
        fold_(sae, mean, scale / unit)
        sae.cfg.metadata.model_name = job["model"]["hub_name"]
        sae.cfg.metadata.hook_name = job["site"]["hook_name"].format(layer=job["layer"])
        sae.save_inference_model(folder)
        (folder / "runner_cfg.json").write_text(json.dumps({"training_tokens": job["tokens"]}))
    print(f"{args.out}: {len(trainers)} SAEs, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
