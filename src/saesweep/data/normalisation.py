"""Statistics of the activations at a hook point, measured before training: mean, scale, and the norm of a sink."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint

CONSTANT = 1e-6  # an RMS spread below this share of the norm of the mean is rounding
MIN_SPREAD, MAX_SPREAD = 1e-18, 1e18  # beyond these the square leaves the range of float32


@dataclass(frozen=True)
class Statistics:
    """Normalisation x -> (x - mean) / scale of one hook point, and its sinks; from the first tokens of the stream.

    A sink is a token whose centred norm exceeds `activations.max_norm` times the median. Norms are in raw units. The target of
    a transcoder has statistics of its own, and a token that is a sink at either of the two is left out at both.
    """

    mean: Float[Tensor, " d_in"]  # zeros with activations.center=false
    scale: float  # so that E||(x - mean) / scale||^2 = 1 without sinks
    centre: Float[Tensor, " d_in"]  # the mean without sinks, whether or not it is subtracted
    largest: float  # largest centred norm of a token that is not a sink; infinity with max_norm=null
    quantiles: tuple[float, ...]  # 1%, 50%, 99%, 100% of the centred norms
    sinks: float  # share of tokens
    target: Statistics | None = None  # of a transcoder

    @property
    def output(self) -> Statistics:
        """Of the tensor that is reconstructed."""
        return self.target or self

    @property
    def sizes(self) -> tuple[int, int | None]:
        """d_in, and the d_out of a transcoder."""
        return len(self.mean), self.target and len(self.target.mean)

    @staticmethod
    def of(
        x: Float[Tensor, "tokens d_in"], *, center: bool, max_norm: float | None, point: HookPoint | str = "the hook point"
    ) -> Statistics:
        """Measure rows x. The mean is taken twice, the second time without the sinks found by the first.

        Raises UsageError, which names `point`, for rows that are not finite, do not vary, are all sinks, or whose squares
        leave the range of float32.
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
        """Tensors and JSON values for a checkpoint; `restored` is the inverse."""
        numbers = {"scale": self.scale, "largest": self.largest, "quantiles": list(self.quantiles), "sinks": self.sinks}
        tensors = {"statistics.mean": self.mean, "statistics.centre": self.centre}
        if self.target is not None:
            of_target, numbers["target"] = self.target.saved()
            tensors |= {f"target.{key}": tensor for key, tensor in of_target.items()}
        return tensors, numbers

    @staticmethod
    def restored(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Statistics:
        mean, centre = tensors["statistics.mean"], tensors["statistics.centre"]
        target = None
        if (of_target := numbers.get("target")) is not None:
            own = {key.removeprefix("target."): tensor for key, tensor in tensors.items() if key.startswith("target.")}
            target = Statistics.restored(own, of_target)
        own = {"mean": mean, "centre": centre, "quantiles": tuple(numbers["quantiles"]), "target": target}
        return Statistics(**(dict(numbers) | own))

    def on(self, device: torch.device) -> Statistics:
        """The same with its tensors there, so that no batch copies them."""
        if self.mean.device == self.centre.device == device:
            return self
        target = self.target and self.target.on(device)
        return replace(self, mean=self.mean.to(device), centre=self.centre.to(device), target=target)

    def ordinary(
        self, x: Float[Tensor, "*tokens d_in"], y: Float[Tensor, "*tokens d_out"] | None = None
    ) -> Bool[Tensor, "*tokens"]:
        """Which tokens are not sinks, nor at the target where y is given. A row that is not finite is not a sink: it must raise
        an error, not be left out."""
        norms = (x.float() - self.centre.to(x.device)).norm(dim=-1)
        found = (norms <= self.largest) | ~norms.isfinite()
        return found if y is None else found & self.output.ordinary(y)

    def apply(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_in"]:
        """Raw activations, normalised in fp32."""
        return (x.float() - self.mean.to(x.device)) / self.scale

    def batch(
        self, x: Float[Tensor, "tokens d_in"], y: Float[Tensor, "tokens d_out"] | None = None
    ) -> Float[Tensor, "tokens _"]:
        """What an SAE is trained on: x normalised; for a transcoder [x | y], each by its own statistics."""
        return self.apply(x) if y is None else torch.cat([self.apply(x), self.output.apply(y)], 1)

    def undo(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_in"]:
        """Normalised activations, in raw units."""
        return x * self.scale + self.mean.to(x.device)

    def report(self, point: HookPoint) -> str:
        """A line on the activations at the hook point, and a line on their normalisation or a better one; so of its target."""
        if self.target is not None:
            source, target = point.tensors
            return f"{replace(self, target=None).report(source)}\n{self.target.report(target)}"
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
        fix = "write model.dtype=bfloat16 or float32" if half else "the language model produces them: choose another site"
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
    if not MIN_SPREAD < spread < MAX_SPREAD:
        raise UsageError(f"the activations at {point} have a spread of {spread:.3g}, whose square leaves the range of "
                         "float32; choose another site=... or layer=..., or another model")
