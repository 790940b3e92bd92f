"""One training step of each peer on given activations, as in its own trainer: pip install -e '.[bench]'."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

warnings.filterwarnings("ignore")
Step = Callable[[Tensor], None]
PRECISIONS = ("fp32", "bf16")


def contestants(
    arch: str, x: Tensor, d_sae: int, k: int, threshold: float, precisions: Sequence[str]
) -> Iterator[tuple[str, Step]]:
    """The steps of each peer that has the architecture, on x's device, in fp32 and with bf16 autocast; `threshold` makes the
    initial L0 equal k."""
    device = x.device.type
    makers = {
        "SAELens": {"jumprelu": sae_lens, "topk": sae_lens, "gated": sae_lens},
        "dictionary_learning": {"jumprelu": dictionary_learning, "topk": dictionary_learning, "gated": dictionary_learning},
        "sparsify": {"topk": sparsify},
    }
    for peer, known in makers.items():
        if arch in known:
            for precision in precisions:
                yield f"{peer} {precision}", known[arch](arch, x.shape[1], d_sae, k, threshold, precision == "bf16", device)


def sae_lens(arch: str, d_in: int, d_sae: int, k: int, threshold: float, bf16: bool, device: str = "cpu") -> Step:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(0)
    if arch == "jumprelu":
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(d_in=d_in, d_sae=d_sae, jumprelu_init_threshold=threshold))
    elif arch == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d_in, d_sae=d_sae, k=k))
    else:
        sae = GatedTrainingSAE(GatedTrainingSAEConfig(d_in=d_in, d_sae=d_sae))
    numbers = {"total_training_samples": 10**12, "train_batch_size_samples": 2048, "lr_end": 3e-5}
    cfg = SAETrainerConfig(**numbers, autocast=bf16, device=device)
    trainer = SAETrainer(cfg, sae.to(device), data_provider=iter(()))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def dictionary_learning(arch: str, d_in: int, d_sae: int, k: int, threshold: float, bf16: bool, device: str) -> Step:
    """It turns autocast off on a CPU, so the step is wrapped in one for bf16."""
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    torch.manual_seed(0)
    common = {"steps": 10**9, "activation_dim": d_in, "dict_size": d_sae, "layer": 0, "lm_name": "none", "device": device}
    if arch == "jumprelu":
        trainer = JumpReluTrainer(**common, target_l0=k)
        trainer.ae.threshold.data.fill_(threshold)
    else:
        trainer = TopKTrainer(**common, k=k) if arch == "topk" else GatedSAETrainer(**common)
    steps = iter(range(10**9))

    def step(x: Tensor) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            trainer.update(next(steps), x)

    return step


def sparsify(arch: str, d_in: int, d_sae: int, k: int, threshold: float, bf16: bool, device: str) -> Step:
    """The operations of its trainer's hook and loop, with Adam; on a CPU its sums are those of PyTorch's embedding bags."""
    if device == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # it would use Triton wherever that is installed
    from sparsify import SparseCoder, SparseCoderConfig

    torch.manual_seed(0)
    sae = SparseCoder(d_in, SparseCoderConfig(num_latents=d_sae, k=k), device=device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=2e-4)
    fired = torch.zeros(d_sae, dtype=torch.bool, device=device)

    def step(x: Tensor) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            sae.set_decoder_norm_to_unit_norm()
            variance = (x - x.mean(0)).pow(2).sum()
            out = sae(x=x, y=x, dead_mask=None, total_variance=variance)
            fired[out.latent_indices.flatten()] = True
            out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step
