"""What is measured of a hook point before anything is trained: its mean, its scale, and which of its tokens are sinks."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint

CONSTANT = 1e-6  # a root mean square spread below this share of the mean's norm is rounding
LEAST, MOST = 1e-18, 1e18  # of the spread, whose square is a number of float32


@dataclass(frozen=True)
class Statistics:
    """Of one hook point, from the first tokens of the stream: x -> (x - mean) / scale, and which tokens are sinks."""

    mean: Float[Tensor, " d_in"]  # zeros where the run does not centre
    scale: float  # so that E||(x - mean) / scale||^2 = 1 over the tokens that are no sinks
    centre: Float[Tensor, " d_in"]  # the mean, whether or not it is subtracted
    largest: float  # a centred norm above this is a sink's; infinity where sinks are kept
    quantiles: tuple[float, ...]  # 1%, 50%, 99%, 100% of the centred norms
    sinks: float  # share of the tokens

    @staticmethod
    def of(
        x: Float[Tensor, "tokens d_in"], *, center: bool, max_norm: float | None, point: HookPoint | str = "the hook point"
    ) -> Statistics:
        """The mean is taken twice: the second time without the sinks that the first one showed.

        Raises UsageError, which names `point`, where nothing can be trained: on rows that are not finite, do not vary, or are
        too small or too large to be squared.
        """
        require_finite(x, point)
        x = x.double()
        norms = (x - x.mean(0)).norm(dim=1)
        largest = max_norm * float(norms.median()) if max_norm else float("inf")
        kept = x[norms <= largest]
        if len(kept) == 0:
            raise UsageError(f"activations.max_norm={max_norm}: all {len(x):,} tokens at {point} are sinks by it; write a "
                             "larger number, such as 8, or null")
        centre = kept.mean(0)
        _require_spread(kept, centre, len(x) - len(kept), point)
        norms = (x - centre).norm(dim=1)
        mean = centre if center else torch.zeros_like(centre)
        scale = float((kept - mean).square().sum(1).mean().sqrt())
        levels = torch.tensor([0.01, 0.5, 0.99, 1.0], dtype=torch.float64, device=norms.device)
        quantiles = tuple(norms.quantile(levels).tolist())
        return Statistics(mean.float(), scale, centre.float(), largest, quantiles, float((norms > largest).double().mean()))

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Its tensors, and the rest as JSON knows it."""
        numbers = {"scale": self.scale, "largest": self.largest, "quantiles": list(self.quantiles), "sinks": self.sinks}
        return {"statistics.mean": self.mean, "statistics.centre": self.centre}, numbers

    @staticmethod
    def restored(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Statistics:
        mean, centre = tensors["statistics.mean"], tensors["statistics.centre"]
        return Statistics(**(dict(numbers) | {"mean": mean, "centre": centre, "quantiles": tuple(numbers["quantiles"])}))

    def ordinary(self, x: Float[Tensor, "*tokens d_in"]) -> Bool[Tensor, "*tokens"]:
        """Which tokens are no sinks. A row that is not finite is none: it is not to be left out without a word."""
        norms = (x.float() - self.centre.to(x.device)).norm(dim=-1)
        return (norms <= self.largest) | ~norms.isfinite()

    def apply(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_in"]:
        return (x.float() - self.mean.to(x.device)) / self.scale

    def undo(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_in"]:
        return x * self.scale + self.mean.to(x.device)

    def report(self, point: HookPoint) -> str:
        """One line on the site, and one on what follows from it."""
        spread = self.quantiles[1]
        ratio = float(self.centre.norm()) / spread
        low, median, high, top = self.quantiles
        seen = (
            f"{point}: |mean| {self.centre.norm():.4g} is {ratio:.1f} times the median spread {spread:.4g}; centred norms "
            f"{low / median:.2f} (1%), 1, {high / median:.2f} (99%), {top / median:.1f} (largest) times the median; "
            f"sinks {self.sinks:.3%}"
        )
        centred = bool(self.mean.any())
        if ratio > 1 and not centred:
            return f"{seen}\n  the mean outweighs the spread: activations.center=true would spare the SAE from learning it"
        if top / median > 8 and self.largest == float("inf"):
            return f"{seen}\n  a few tokens dominate the squared error: activations.max_norm=8 would leave them out"
        return f"{seen}\n  trained on {'(x - mean)' if centred else 'x'} / {self.scale:.4g}"


def require_finite(x: Float[Tensor, "tokens d_in"], point: HookPoint | str) -> None:
    """Raises UsageError where rows are not finite."""
    bad = int((~x.isfinite().all(dim=1)).sum())
    if bad:
        half = x.dtype == torch.float16
        fix = "write model.dtype=bfloat16 or float32" if half else "the language model itself gives them: choose another site"
        where = "model.dtype=float16: " if half else ""
        raise UsageError(f"{where}the activations at {point} are not finite on {bad:,} of {len(x):,} tokens; {fix}")


def _require_spread(
    kept: Float[Tensor, "tokens d_in"], centre: Float[Tensor, " d_in"], sinks: int, point: HookPoint | str
) -> None:
    spread = float((kept - centre).square().sum(1).mean().sqrt())
    if spread <= CONSTANT * float(centre.norm()):
        besides = f" besides {sinks:,} sinks" if sinks else ""
        raise UsageError(f"the activations at {point} do not vary over {len(kept):,} tokens{besides} (constant): there is "
                         "nothing to train on; choose another site=... or layer=...")
    if not LEAST < spread < MOST:
        raise UsageError(f"the activations at {point} have a spread of {spread:.3g}, whose square float32 does not hold: there "
                         "is nothing to train on; choose another site=... or layer=..., or another model")
