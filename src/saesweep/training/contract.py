"""What an architecture must keep (arch/base.py), checked before anything is trained: a breach would end in wrong numbers.

Each check raises UsageError with the architecture's name, what was found and the fix.
"""
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.arch.base import SparseAutoencoder, Step
from saesweep.errors import UsageError
from saesweep.storage import sae_format

PROGRESS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the run at which a step is taken: warm starts end somewhere between


def require_contract(sae: SparseAutoencoder, x: Float[Tensor, "batch _"], arch: Mapping[str, Any]) -> None:
    """`sae`: untrained, and changed by the steps; `x`: a training batch; `arch`: the node of the config."""
    name, keys = arch["name"], list[list[str]]()
    _require_consistent(sae, sae.inputs(x), name)
    for progress in PROGRESS:
        before, version = sae.W_enc_T.detach().clone(), sae.W_enc_T._version
        buffers = {key: buffer.clone() for key, buffer in sae.named_buffers()}
        step = sae.step(x, x.new_ones(()), progress)
        _require_retakable(sae, buffers, progress, name)
        sae.constrain_()
        if version == sae.W_enc_T._version and not torch.equal(before, sae.W_enc_T):
            raise UsageError(f"arch={name}: it changes W_enc_T through `.data`, which the copy of it on a GPU does not notice; "
                             "write to W_enc_T itself, under torch.no_grad()")
        _require_losses(step, sae.targets(x), f"arch={name}: at progress={progress:g}")
        keys.append(list(step.losses))
        if problem := changed_keys(keys[0], keys[-1]):
            raise UsageError(f"arch={name}: from progress=0 to progress={progress:g}, {problem}")
    if sae.execution.graphs:
        _require_repeatable(sae, x, name)
    if arch["control"] is None and "sparsity" in keys[-1]:
        raise UsageError(f"arch.control=null: {name} has a sparsity loss, whose coefficient would stay 0; give "
                         "the numbers that move it, as conf/arch/jumprelu.yaml does")


def changed_keys(before: Iterable[str], now: Iterable[str]) -> str:
    """One line about losses whose keys differ between two steps; empty where they are the same, in the same order."""
    before, now = ", ".join(before), ", ".join(now)
    if before == now:
        return ""
    return (f"the keys of its losses were {before} and are now {now}: `step` must return the same keys in the same order at "
            "every step; return x.new_zeros(()) for a loss that is off")


@torch.no_grad()
def _require_consistent(sae: SparseAutoencoder, x: Float[Tensor, "batch d_in"], name: str) -> None:
    """`exported` and `margin` mean what `activate` computes."""
    sae.b_enc += 1e-3 * torch.randn(sae.b_enc.shape, generator=torch.Generator().manual_seed(0)).to(x)  # no ties (d_in=1)
    f = sae.activate((x - sae.pre_bias) @ sae.W_enc + sae.b_enc)
    tensors = {key: tensor.to(x) for key, tensor in sae.exported().items()} | {"b_dec": sae.pre_bias}
    read = sae_format.encoded(sae.saved_as, tensors, sae.sparsity, x)
    if read is not None and not _mostly_equal(read, f):
        raise UsageError(f"arch={name}: saved_as={sae.saved_as}, but SAELens' {sae.saved_as} encodes otherwise than its "
                         f"`activate`; write saved_as = \"{name}\", which SAELens refuses to load")
    if sae.thresholded and not _mostly_equal(sae.margin(x) > 0, f > 0):
        raise UsageError(f"arch={name}: its latents are active elsewhere than where `margin` is above zero; L0 is calibrated "
                         "by `margin` and `raise_thresholds_`: write both to fit `activate`")


def _require_retakable(sae: SparseAutoencoder, before: Mapping[str, Tensor], progress: float, name: str) -> None:
    """A step that the training may take twice, or in pieces, changes no buffer."""
    says = [method for method in ("separable", "repeatable") if getattr(sae, method)(progress)]
    changed = [key for key, buffer in sae.named_buffers() if not torch.equal(buffer, before[key])]
    if says and changed:
        raise UsageError(f"arch={name}: its `step` changes the buffer {changed[0]}, and {says[0]}({progress:g}) is True, by "
                         "which the training may take a step twice; let it return False")


@torch.no_grad()
def _require_repeatable(sae: SparseAutoencoder, x: Float[Tensor, "batch _"], name: str) -> None:
    """At each progress for which `repeatable` is True, a batch has the same losses."""
    losses = {progress: torch.stack(list(sae.step(x, x.new_ones(()), progress).losses.values()))
              for progress in PROGRESS if sae.repeatable(progress)}
    for (before, some), (after, others) in pairwise(losses.items()):
        if not torch.allclose(some, others, rtol=1e-4):
            raise UsageError(f"arch={name}: its losses on one batch differ between progress={before:g} and {after:g}, but "
                             f"repeatable({before:g}) is True, by which a CUDA graph repeats the step; let it return False "
                             "until they depend on `progress` no more")


def _require_losses(step: Step, x: Float[Tensor, "batch d_out"], where: str) -> None:
    """Finite scalars with a gradient, of which `reconstruction` is the full error; a loss that is off is a constant 0."""
    if "reconstruction" not in step.losses:
        raise UsageError(f"{where}, its losses are {', '.join(step.losses) or 'none'} and lack reconstruction, from which the "
                         "fvu is computed; `reconstruct` returns it")
    for key, loss in step.losses.items():
        if not isinstance(loss, Tensor) or loss.shape != ():
            shape = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise UsageError(f"{where}, its loss {key} is {shape}, not a scalar tensor; take its mean over the batch")
        if not loss.isfinite():
            raise UsageError(f"{where}, its loss {key} is {float(loss.detach())}; it must be finite")
        if not loss.requires_grad and (key == "reconstruction" or loss != 0):
            raise UsageError(f"{where}, its loss {key} is {float(loss):.4g} and has no gradient; compute it from the "
                             "parameters without `detach`")
    found, error = float(step.losses["reconstruction"].detach()), float((x - step.x_hat).square().sum(1).mean())
    if abs(found - error) > 1e-3 * error + 1e-5 * float(x.square().sum(1).mean()):
        raise UsageError(f"{where}, its loss reconstruction is {found:.4g}, but ||x - x_hat||^2, summed over d_in and averaged "
                         f"over the batch, is {error:.4g}; put other terms and factors into a loss of another name")


def _mostly_equal(a: Tensor, b: Tensor) -> bool:
    """Equal, but for few of the entries of b that are not zero: those at the edge of being active."""
    other = ~torch.isclose(a.float(), b.float(), rtol=1e-3, atol=1e-5)
    return bool(other.sum() <= 0.02 * (b != 0).sum())
