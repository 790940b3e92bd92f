"""What every architecture defines: encode, decode, step, fold.

    u     = x - b_dec                       the pre-encoder bias of the papers
    pi    = u W_enc + b_enc
    f     = encode(x) >= 0, sparse          differs between architectures
    x_hat = f W_dec + b_dec                 rows of W_dec have unit norm

A transcoder (transcoder.py) is an SAE of any architecture whose u is x and whose x_hat is of another tensor.
"""
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saesweep.arch.execution import Execution
from saesweep.arch.latents import Latents, encode, reconstruct


class Step(NamedTuple):
    """The result of one training forward. The gradient is that of sum(losses.values()); each loss is logged.

    `losses` has the same keys in the same order at every step; a loss that is off is x.new_zeros(()).
    losses["reconstruction"] is ||x - x_hat||^2, summed over d_in and averaged over the batch. training/contract.py checks both.
    """

    latents: Latents
    x_hat: Float[Tensor, "batch d_out"]
    losses: dict[str, Float[Tensor, ""]]


class SparseAutoencoder(nn.Module, ABC):
    """W_enc [d_in, d_sae] starts as the transpose of W_dec [d_sae, d_in], whose rows are He-uniform, normalised to norm one."""

    saved_as: ClassVar[str]  # the architecture's name in the file format of SAELens
    thresholded: ClassVar[bool] = True  # whether a latent is active depends on its own margin, not on its rank among others
    latent_units: ClassVar[tuple[str, ...]] = ("b_enc",)  # per-latent parameters in the units of the pre-activation
    unclipped: ClassVar[tuple[str, ...]] = ()  # parameters without gradient clipping: their gradients scale with 1/bandwidth
    prefixes: tuple[int, ...] = ()  # numbers m: the first m latents are an SAE of their own, measured in the evaluation
    levels: tuple[int, ...] = ()  # numbers j: the j largest latents of each token are, likewise
    transcodes: bool = False
    W_skip: nn.Parameter | None  # [d_in, d_out], of a skip transcoder
    tokens_seen: Tensor
    tokens_since_fired: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """An architecture that says anew what is active lists it by its dense latents, and one with a step of its own takes no
        step in pieces, nor repeats one as a CUDA graph, unless it says that anew too."""
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.separable = vars(cls).get("separable", SparseAutoencoder.separable)
            cls.repeatable = vars(cls).get("repeatable", SparseAutoencoder.repeatable)
        if {"activate", "encode"} & vars(cls).keys() and "list_active" not in vars(cls):
            cls.list_active = SparseAutoencoder.list_active

    def __init__(self, d_in: int, d_sae: int, sparsity: int):
        super().__init__()
        self.d_in, self.d_sae, self.sparsity = d_in, d_sae, sparsity
        self.execution = Execution()
        W_dec = nn.init.kaiming_uniform_(torch.empty(d_sae, d_in))
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(W_dec)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.W_enc_T = nn.Parameter(W_dec.clone())  # one row per latent, as in W_dec: gradients are written row by row
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.register_parameter("W_skip", None)
        self.register_buffer("tokens_seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("tokens_since_fired", torch.zeros(d_sae, dtype=torch.long))

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        return self.W_enc_T.T

    @property
    def d_out(self) -> int:
        return len(self.b_dec)

    @property
    def pre_bias(self) -> Float[Tensor, " d_in"]:
        """What is subtracted from x before the encoder: b_dec, of a transcoder nothing."""
        return self.b_dec.new_zeros(self.d_in) if self.transcodes else self.b_dec

    def inputs(self, x: Float[Tensor, "batch _"]) -> Float[Tensor, "batch d_in"]:
        """Of a training batch, what is encoded: all of it, or the x of a transcoder's [x | y]."""
        return x[:, : self.d_in] if self.transcodes else x

    def targets(self, x: Float[Tensor, "batch _"]) -> Float[Tensor, "batch d_out"]:
        """Of a training batch, what is reconstructed."""
        return x[:, self.d_in :] if self.transcodes else x

    def with_skip(
        self, x_hat: Float[Tensor, "*batch d_out"], x: Float[Tensor, "*batch d_in"]
    ) -> Float[Tensor, "*batch d_out"]:
        """x_hat of the latents alone, and x W_skip, which a skip transcoder adds."""
        return x_hat if self.W_skip is None else x_hat + x @ self.W_skip

    @abstractmethod
    def activate(self, pi: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Latents from dense pre-activations, as in the trained SAE."""

    @abstractmethod
    def step(self, x: Float[Tensor, "batch _"], coefficient: Float[Tensor, ""], progress: float) -> Step:
        """One training forward; `progress` is the share of the training tokens seen so far. x: [batch, d_in], of a transcoder
        [x | y], which `preactivations` and `reconstruct` take apart, as `inputs` and `targets` do."""

    def separable(self, progress: float) -> bool:
        """Whether the training may take a dense step in pieces, to save memory (training/pieces.py): each loss is a mean over
        tokens, `step` changes no buffer, and takes from the rest of the batch only what it all-reduces, in one call."""
        return False

    def repeatable(self, progress: float) -> bool:
        """Whether the training may repeat this step as a CUDA graph (training/graphs.py): from here on `step` does not depend
        on `progress`, changes no buffer, reads no value of a tensor, and only what has room differs in size."""
        return False

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Latents, at least 0; x in training units, or raw once the SAE is folded."""
        return self.activate((x - self.pre_bias) @ self.W_enc + self.b_enc)

    def list_active(self, x: Float[Tensor, "batch d_in"]) -> Latents:
        """`encode` as a list of the entries that can be above 0; dense unless an architecture lists them.

        Values are those of `encode` up to the rounding of its sums. A list has all entries but those that are this close to
        their bound.
        """
        f = self.encode(x)
        return Latents(f, (len(x), self.d_sae))

    def decode(self, f: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_out"]:
        """x_hat, in the units of x; of a skip transcoder what the latents alone give, see `with_skip`."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """decode(encode(x)), and what a skip transcoder adds."""
        return self.with_skip(self.decode(self.encode(x)), x)

    def preactivations(
        self, x: Float[Tensor, "batch _"], *, above: float | Float[Tensor, "..."] | None = None, largest: int = 0,
        sure: bool = False,
    ) -> Latents:
        """pi where it lies above a bound, or else the `largest` many of each token; all others are zero and have no gradient.

        `above`: one number, or one per latent. It must be at most the smallest pi that has a value or a pseudo-derivative in
        some loss, because all below has neither, also with `execution.dense`. sure: none is missing from a list; without it
        about one in ten thousand is, at the edge of being chosen.
        """
        if isinstance(above, Tensor):
            above = above.detach().to(self.b_enc.dtype).expand_as(self.b_enc)
        elif above is not None:
            above = torch.full_like(self.b_enc, above)
        return encode(self.inputs(x), self.W_enc_T, self.b_enc, self.pre_bias, above, largest, self.execution, sure)

    def reconstruct(
        self, f: Latents, x: Float[Tensor, "batch _"], frozen: bool = False
    ) -> tuple[Float[Tensor, "batch d_out"], Float[Tensor, ""]]:
        """x_hat = f W_dec + b_dec, and ||x - x_hat||^2 summed over d_in and averaged over the batch.

        The error has a gradient, x_hat has none. `frozen`: W_dec, b_dec and W_skip are constants.
        """
        W_dec, b_dec = (p.detach() if frozen else p for p in (self.W_dec, self.b_dec))
        target = self.without_skip(x, frozen)
        x_hat, error = reconstruct(f, W_dec, b_dec, target, self.execution.deferred_gradients)
        return x_hat if self.W_skip is None else x_hat + (self.targets(x) - target.detach()), error

    def without_skip(self, x: Float[Tensor, "batch _"], frozen: bool = False) -> Float[Tensor, "batch d_out"]:
        """What f W_dec + b_dec has to reconstruct in a training batch: the target less x W_skip."""
        if self.W_skip is None:
            return self.targets(x)
        return self.targets(x) - self.inputs(x) @ (self.W_skip.detach() if frozen else self.W_skip)

    @torch.no_grad()
    def count_fired_(self, fired: Bool[Tensor, " d_sae"], tokens: int) -> None:
        """After a batch of this many tokens: update the number of tokens since each latent last fired."""
        self.tokens_seen += tokens
        self.tokens_since_fired += tokens
        self.tokens_since_fired.masked_fill_(fired, 0)

    @torch.no_grad()
    def constrain_(self) -> None:
        """After each optimizer step: project parameters onto their range. The optimizer keeps W_dec's rows at norm one."""

    def margin(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """Each pre-activation minus the value at which its latent becomes active."""
        return torch.addmm(self.b_enc, x - self.pre_bias, self.W_enc)

    @torch.no_grad()
    def raise_thresholds_(self, amount: float) -> None:
        """Lower every margin by this amount, so that fewer latents are active."""
        self.b_enc -= amount

    @torch.no_grad()
    def fold_(self, mean: Float[Tensor, " d_out"], scale: float) -> None:
        """From training units, (x - mean) / scale, to raw ones: encode(raw) = scale * encode(scaled), decode in raw units. Of a
        transcoder mean and scale are the target's, and `fold_input_` comes first."""
        self.b_dec.mul_(scale).add_(mean)
        for name in self.latent_units:
            getattr(self, name).mul_(scale)
        if self.transcodes:
            self.W_enc_T.mul_(scale)
        if self.W_skip is not None:
            self.W_skip.mul_(scale)

    @torch.no_grad()
    def fold_input_(self, mean: Float[Tensor, " d_in"], scale: float) -> None:
        """Of a transcoder: from x in training units, (x - mean) / scale, to raw x. f and y_hat do not change."""
        mean = mean.to(self.W_enc_T)
        self.W_enc_T.div_(scale)
        self.shift_preactivations_(-(self.W_enc_T @ mean))
        if self.W_skip is not None:
            self.b_dec.sub_(mean @ self.W_skip.div_(scale))

    @torch.no_grad()
    def shift_preactivations_(self, amount: Float[Tensor, " d_sae"]) -> None:
        """What a constant in x W_enc adds to each latent's pre-activation."""
        self.b_enc += amount

    def exported(self) -> dict[str, Tensor]:
        """The tensors of SAELens' format `saved_as`, on the CPU, contiguous, fp32; its W_skip is [d_out, d_in]."""
        tensors = {name: getattr(self, name) for name in ("W_enc", "W_dec", "b_dec", *self.latent_units)}
        if self.W_skip is not None:
            tensors["W_skip"] = self.W_skip.T
        return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_exported_(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors that `exported` returned."""
        for name in ("W_enc", "W_dec", "b_dec", *self.latent_units):
            getattr(self, name).copy_(tensors[name])
        if self.W_skip is not None:
            self.W_skip.copy_(tensors["W_skip"].T)
