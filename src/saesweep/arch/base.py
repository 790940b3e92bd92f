"""The one contract that every architecture keeps: encode, decode, step, fold.

    u     = x - b_dec                       the pre-encoder bias of the papers
    pi    = u W_enc + b_enc
    f     = encode(x) >= 0, sparse          what makes an architecture
    x_hat = f W_dec + b_dec                 rows of W_dec have unit norm
"""
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saesweep.arch.execution import Execution
from saesweep.arch.latents import Latents, encode, reconstruct


class Step(NamedTuple):
    """What one training forward hands back. Backward sees sum(losses.values()), the logs show the same terms.

    losses["reconstruction"] is ||x - x_hat||^2: summed over d_in, averaged over the batch.
    """

    latents: Latents
    x_hat: Float[Tensor, "batch d_in"]
    losses: dict[str, Float[Tensor, ""]]


class SparseAutoencoder(nn.Module, ABC):
    """W_enc [d_in, d_sae] starts as the transpose of W_dec [d_sae, d_in], whose rows are He-uniform, then of norm one."""

    saved_as: ClassVar[str]  # the architecture's name in the file format of SAELens
    thresholded: ClassVar[bool] = True  # a latent is active by its own margin, not by its rank on the token
    latent_units: ClassVar[tuple[str, ...]] = ("b_enc",)  # per-latent parameters in the units of the pre-activation
    unclipped: ClassVar[tuple[str, ...]] = ()  # parameters left out of the clipping: their gradients carry 1/bandwidth

    def __init__(self, d_in: int, d_sae: int, sparsity: int):
        super().__init__()
        self.d_in, self.d_sae, self.sparsity = d_in, d_sae, sparsity
        self.execution = Execution()
        W_dec = nn.init.kaiming_uniform_(torch.empty(d_sae, d_in))
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(W_dec)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.W_enc_T = nn.Parameter(W_dec.clone())  # stored by latent, as W_dec is: gradients are written row by row
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.register_buffer("tokens_seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("tokens_since_fired", torch.zeros(d_sae, dtype=torch.long))

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        return self.W_enc_T.T

    @abstractmethod
    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Latents from dense pre-activations, as a user of the trained SAE gets them."""

    @abstractmethod
    def step(self, x: Float[Tensor, "batch d_in"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        """One training forward; `progress` is the share of the training tokens seen so far."""

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Latents, at least 0; x in training units, or raw once the SAE is folded."""
        return self.activate((x - self.b_dec) @ self.W_enc + self.b_enc)

    def decode(self, f: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """x_hat, in the units of x."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """decode(encode(x))."""
        return self.decode(self.encode(x))

    def preactivations(
        self, x: Float[Tensor, "batch d_in"], *, above: float | Float[Tensor, "..."] | None = None, largest: int = 0
    ) -> Latents:
        """pi where it lies above a bound, or else the `largest` so many of each token; elsewhere zero, without gradient.

        `above`: one number, or one per latent. It must lie under everything that a loss or a pseudo-derivative looks at:
        what lies below is neither a value nor a gradient, also with `dense`.
        """
        if isinstance(above, Tensor):
            above = above.detach().to(self.b_enc.dtype).expand_as(self.b_enc)
        elif above is not None:
            above = torch.full_like(self.b_enc, above)
        return encode(x, self.W_enc_T, self.b_enc, self.b_dec, above, largest, self.execution)

    def reconstruct(
        self, f: Latents, x: Float[Tensor, "batch d_in"], frozen: bool = False
    ) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, ""]]:
        """x_hat = f W_dec + b_dec, and ||x - x_hat||^2: summed over d_in, averaged over the batch.

        The gradient is the error's; x_hat has none. `frozen`: W_dec and b_dec are held constant.
        """
        W_dec, b_dec = (p.detach() if frozen else p for p in (self.W_dec, self.b_dec))
        return reconstruct(f, W_dec, b_dec, x, self.execution.deferred_gradients)

    @torch.no_grad()
    def count_fired_(self, fired: Bool[Tensor, " d_sae"], tokens: int) -> None:
        """After a batch of so many tokens: how many each latent has not been active for."""
        self.tokens_seen += tokens
        self.tokens_since_fired += tokens
        self.tokens_since_fired.masked_fill_(fired, 0)

    @torch.no_grad()
    def constrain_(self) -> None:
        """After the optimizer, which keeps the rows of W_dec at norm one by itself."""

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """How far each pre-activation lies above where its latent becomes active."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    @torch.no_grad()
    def raise_thresholds_(self, amount: float) -> None:
        """Lowers every margin by this amount: fewer latents are active."""
        self.b_enc -= amount

    @torch.no_grad()
    def fold_(self, mean: Float[Tensor, " d_in"], scale: float) -> None:
        """From training units, (x - mean) / scale, to raw ones: encode(raw) = scale * encode(scaled), decode exactly back."""
        self.b_dec.mul_(scale).add_(mean)
        for name in self.latent_units:
            getattr(self, name).mul_(scale)

    def exported(self) -> dict[str, Tensor]:
        """The tensors of the SAELens format (section `saved_as` of it), on the CPU, contiguous, fp32."""
        names = ("W_enc", "W_dec", "b_dec", *self.latent_units)
        return {name: getattr(self, name).detach().float().cpu().contiguous() for name in names}

    @torch.no_grad()
    def load_exported_(self, tensors: Mapping[str, Tensor]) -> None:
        """What `exported` gave."""
        for name in ("W_enc", "W_dec", "b_dec", *self.latent_units):
            getattr(self, name).copy_(tensors[name])
