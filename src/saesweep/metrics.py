"""What each number is: sums over held-out tokens in fp64, divided once at the end (README, "Metrics")."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

UNCOUNTED = -100
NOT_SPLICED = dict.fromkeys(("ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered"))  # without an LM


class Fidelity:
    """How well x_hat = decode(encode(x)) stands for x, and how often each latent fires."""

    def __init__(self, d_in: int, d_sae: int, mean: Float[Tensor, " d_in"], scale: float):
        """mean, scale: of the training units, in which mse, cosine and bias are taken."""
        self.mean, self.scale = mean.double(), scale
        self.tokens = 0
        self.fired = torch.zeros(d_sae, dtype=torch.long)
        self.sum_x = torch.zeros(d_in, dtype=torch.float64)
        self.squared_x = self.squared_error = self.squared_x_hat = self.product = self.cosine = 0.0

    @torch.no_grad()
    def add(
        self, x: Float[Tensor, "tokens d_in"], f: Float[Tensor, "tokens d_sae"], x_hat: Float[Tensor, "tokens d_in"]
    ) -> None:
        """x and x_hat in raw units."""
        x, x_hat = ((tensor.double() - self.mean.to(tensor.device)) / self.scale for tensor in (x, x_hat))
        products = (x * x_hat).sum(1)
        squared_x, squared_x_hat = x.square().sum(1), x_hat.square().sum(1)
        self.tokens += len(x)
        self.fired += torch.count_nonzero(f > 0, dim=0).cpu()
        self.sum_x += x.sum(0).cpu()
        self.squared_x += float(squared_x.sum())
        self.squared_error += float((x - x_hat).square().sum())
        self.squared_x_hat += float(squared_x_hat.sum())
        self.product += float(products.sum())
        self.cosine += float((products / (squared_x * squared_x_hat).sqrt().clamp(min=1e-30)).sum())

    @property
    def frequency(self) -> Float[Tensor, " d_sae"]:
        """Share of the tokens on which each latent is active."""
        return self.fired.double() / self.tokens

    def result(self) -> dict[str, float]:
        variance = self.squared_x - float(self.sum_x.square().sum()) / self.tokens
        frequency = self.frequency
        return {
            "l0": float(frequency.sum()),
            "fvu": self.squared_error / variance,
            "mse": self.squared_error / self.tokens,
            "cosine": self.cosine / self.tokens,
            "relative_reconstruction_bias": self.squared_x_hat / self.product if self.product else float("nan"),
            "frequency_over_1pct": float((frequency > 0.01).double().mean()),
            "frequency_over_10pct": float((frequency > 0.1).double().mean()),
        }


class CrossEntropy:
    """Mean next-token cross-entropy, nats per token."""

    def __init__(self) -> None:
        self.nats, self.tokens = 0.0, 0

    @torch.no_grad()
    def add(self, logits: Float[Tensor, "batch pos vocab"], tokens: Int[Tensor, "batch pos"], counted: Tensor) -> None:
        """`counted` [batch, pos]: the tokens whose prediction is scored."""
        counted = counted[:, 1:]
        targets = tokens[:, 1:].masked_fill(~counted, UNCOUNTED)
        for predicted, target in zip(logits[:, :-1], targets, strict=True):  # views: logits are too large to be copied
            for part, wanted in zip(predicted.split(32), target.split(32), strict=True):  # fp32 ones that fit the cache
                self.nats += float(F.cross_entropy(part.float(), wanted, ignore_index=UNCOUNTED, reduction="sum"))
        self.tokens += int(counted.sum())

    def result(self) -> float:
        return self.nats / self.tokens


def spliced(clean: float, sae: float, zero: float, mean: float) -> dict[str, float]:
    """The language model's loss with the reconstruction in place of the activation, against its ablations."""
    return {
        "ce_clean": clean, "ce_sae": sae, "ce_zero": zero, "ce_mean": mean,
        "delta_loss": sae - clean,
        "loss_recovered": 1 - (sae - clean) / (zero - clean) if zero != clean else float("nan"),
    }


def dead_share(tokens_since_fired: Int[Tensor, " d_sae"], tokens: int, dead_after: int) -> float:
    """Share of latents that did not fire in the last `dead_after` training tokens, or the whole run if shorter."""
    return float((tokens_since_fired >= min(dead_after, tokens)).double().mean())
