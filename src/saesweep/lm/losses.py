"""The loss of next-token predictions, without all logits in memory at a time.

    loss = log(sum over words exp(logit)) - logit of the token            in nats

The product with the output embedding is most of the work with a large vocabulary. It is formed for the scored positions
alone, and for some words at a time, so that logits stay in a CPU's cache. What the model does with its logits afterwards,
such as Gemma 2's soft cap, is read off what it makes of a row of test values, one for each word, in their place.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakSet

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saesweep.lm.hooks import in_place_of

PIECE, PIECE_ON_CPU = 2**26, 2**19  # logits in memory at a time
LEAST = 1024  # words at a time, with however many positions
ROWS = 32  # of all logits, in fp32 at a time

_whole = WeakSet[nn.Module]()  # models whose losses cannot be taken in pieces


@torch.no_grad()
def losses_at(
    module: nn.Module, tokens: Int[Tensor, "batch pos"], at: Bool[Tensor, "batch pos"]
) -> Float[Tensor, " scored"]:
    """The loss of each token where `at` is true, given those before it, block by block; none is the first of its block.

    Where the output embedding is no plain matrix, is not called once with all positions, or is followed by something other
    than a factor or a soft cap, all logits of the scored positions are computed.
    """
    wanted, before = tokens[at], at.roll(-1, 1)
    if module not in _whole:
        if seen := _states(module, tokens, before):
            return _in_pieces(*seen, wanted)
        _whole.add(module)
    parts = zip(logits_at(module, tokens, before).split(ROWS), wanted.split(ROWS), strict=True)
    return torch.cat([F.cross_entropy(logits.float(), these, reduction="none") for logits, these in parts])


class _Seen(NamedTuple):
    """What the output embedding was called with at the scored positions, itself, and what becomes of its logits."""

    states: Float[Tensor, "scored d_model"]
    head: nn.Linear
    then: Callable[[Tensor], Tensor]


def _states(module: nn.Module, tokens: Int[Tensor, "batch pos"], at: Bool[Tensor, "batch pos"]) -> _Seen | None:
    """From a pass in which the output embedding returns test values."""
    head = module.get_output_embeddings()  # pyright: ignore[reportCallIssue] - of transformers' models
    if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter or head.weight.device != tokens.device:
        return None  # quantised, sharded or elsewhere
    test = torch.linspace(-100, 100, len(head.weight), dtype=torch.float32, device=tokens.device).to(head.weight.dtype)
    calls = list[Tensor]()

    def instead(states: Tensor) -> Tensor:
        calls.append(states)
        return test[None, None].clone()  # it may be changed in place

    with in_place_of(head, instead):
        made = module(input_ids=tokens, use_cache=False).logits
    if len(calls) != 1 or calls[0].shape[:2] != at.shape or made.shape != (1, 1, len(test)):
        return None
    then = _pointwise(module, test, made[0, 0])
    return then and _Seen(calls[0][at], head, then)


def _pointwise(
    module: nn.Module, test: Float[Tensor, " vocab"], made: Float[Tensor, " vocab"]
) -> Callable[[Tensor], Tensor] | None:
    """The function that maps each of the test values to what was made of it; None if it is none of those below."""
    if torch.equal(test.float(), made.float()):
        return lambda logits: logits
    factor, cap = float(made[-1] / test[-1]), getattr(module.config.get_text_config(), "final_logit_softcapping", None)  # pyright: ignore
    tried: list[Callable[[Tensor], Tensor]] = [lambda logits: logits * factor]
    if cap:
        tried.append(lambda logits: torch.tanh(logits / cap) * cap)
    return next((then for then in tried if torch.allclose(then(test).float(), made.float())), None)


def _in_pieces(
    states: Float[Tensor, "scored d_model"], head: nn.Linear, then: Callable[[Tensor], Tensor], wanted: Int[Tensor, " scored"]
) -> Float[Tensor, " scored"]:
    piece = PIECE_ON_CPU if states.device.type == "cpu" else PIECE
    words = max(LEAST, piece // max(1, len(states)))
    log_sums, of_token = list[Tensor](), torch.full(wanted.shape, math.nan, device=states.device)
    for first in range(0, len(head.weight), words):
        some = slice(first, first + words)
        logits = then(F.linear(states, head.weight[some], None if head.bias is None else head.bias[some])).float()
        among = (wanted - first).clamp(0, logits.shape[1] - 1)
        of_token = torch.where(among == wanted - first, logits.gather(1, among[:, None])[:, 0], of_token)
        log_sums.append(_log_sum(logits))
    return torch.stack(log_sums, 1).logsumexp(1) - of_token


def _log_sum(logits: Float[Tensor, "scored words"]) -> Float[Tensor, " scored"]:
    """log(sum exp), which overwrites the logits: without another matrix it is faster than torch.logsumexp."""
    largest = logits.amax(1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)  # of words that are never predicted too
    return logits.sub_(largest).exp_().sum(1).log_().add_(largest[:, 0])


@torch.no_grad()
def logits_at(
    module: nn.Module, tokens: Int[Tensor, "batch pos"], at: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "chosen vocab"]:
    """The logits at some positions, block by block. The output embedding is given these positions only; where it is not
    called on all of them at once, all logits are computed."""
    def choose(head: nn.Module, args: tuple) -> tuple | None:
        return (args[0][at][None], *args[1:]) if args and args[0].shape[:2] == at.shape else None

    head = module.get_output_embeddings()  # pyright: ignore[reportCallIssue] - of transformers' models
    handle = head.register_forward_pre_hook(choose) if isinstance(head, nn.Module) else None
    try:
        logits = module(input_ids=tokens, use_cache=False).logits
    finally:
        if handle:
            handle.remove()
    return logits[at] if logits.shape[:2] == at.shape else logits[0]
