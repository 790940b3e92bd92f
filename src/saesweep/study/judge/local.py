"""A model of conf/model on this machine, greedily. Of a choice only the log-probabilities of the next token are computed."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from jaxtyping import Float
from torch import Tensor

from saesweep.config.settings import loaded_with
from saesweep.errors import UsageError
from saesweep.lm import models
from saesweep.lm.models import LanguageModel
from saesweep.study.judge.messages import Answer, Failure, Request


class LocalModel:
    def __init__(self, settings: Mapping[str, Any], model: Mapping[str, Any], lm: LanguageModel | None = None) -> None:
        """model: a checked file of conf/model. lm: the same, where it is loaded already."""
        self._settings, self._device = settings, settings["device"]
        self._identity = {"source": model["source"], "weights": models.weights_identity(model)} | loaded_with(model)
        self._lm = lm or models.load(model, self._device)
        if not self._lm.tokenizer.causal:
            raise UsageError(f"model={model['name']}: is an encoder, which writes no text; choose a causal language model")

    def parameters(self, request: Request) -> dict[str, Any]:
        return {"model": self._identity, "template": self._settings["template"], "max_out": request.max_out,
                "choices": request.choices}

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        prompts = [self._ids(request) for request in requests]
        limit = self._lm.tokenizer.positions or float("inf")
        short = [n for n, ids in enumerate(prompts) if len(ids) + requests[n].max_out <= limit]
        yield from ((n, Failure("a prompt longer than the model's context")) for n in set(range(len(prompts))) - set(short))
        choosing = [n for n in short if requests[n].choices]
        for batch in batches(choosing, [len(ids) for ids in prompts], self._settings["batch"]):
            logprobs = self._next_token([prompts[n] for n in batch])
            yield from ((n, self._chosen(row, requests[n].choices)) for n, row in zip(batch, logprobs, strict=True))
        yield from ((n, self._written(prompts[n], requests[n].max_out)) for n in short if not requests[n].choices)

    def _ids(self, request: Request) -> list[int]:
        """Special tokens come from the template alone: a text that spells one is left without it."""
        before, after = self._settings["template"].split("{prompt}", 1)
        tokenizer = self._lm.tokenizer
        parts = tokenizer.encode([before, f"{request.instructions}\n\n{request.content}", after])
        prompt = [number for number in parts[1] if number not in tokenizer.special]
        return [*([] if tokenizer.bos is None else [tokenizer.bos]), *parts[0], *prompt, *parts[2]]

    @torch.inference_mode()
    def _next_token(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Padded on the right, where a causal model does not see it."""
        lengths = torch.tensor([len(ids) for ids in prompts])
        rows = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, ids in zip(rows, prompts, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        last, which = torch.unique(lengths - 1, return_inverse=True)  # logits of all positions would take gigabytes
        logits = self._lm.module(rows.to(self._device), logits_to_keep=last.to(self._device)).logits
        return logits[torch.arange(len(prompts)), which].float().log_softmax(-1).cpu()

    def _chosen(self, logprobs: Float[Tensor, " vocab"], choices: Sequence[str]) -> Answer:
        first = {choice: self._first_ids(choice) for choice in choices}
        found = {}
        for choice, ids in first.items():
            own = ids - set().union(*(others for other, others in first.items() if other != choice))
            if own:
                found[choice] = float(logprobs[sorted(own)].logsumexp(0))
        return Answer(max(found, key=found.__getitem__, default=""), found)

    def _first_ids(self, choice: str) -> set[int]:
        """The first token of each way to write it."""
        spelt = [choice, choice.capitalize(), choice.upper()]
        return {ids[0] for ids in self._lm.tokenizer.encode([*spelt, *(f" {word}" for word in spelt)])}

    @torch.inference_mode()
    def _written(self, prompt: Sequence[int], max_out: int) -> Answer:
        """Up to the first special token."""
        special, decode = sorted(self._lm.tokenizer.special), self._lm.tokenizer.decode
        assert decode is not None
        how = transformers.GenerationConfig(
            max_new_tokens=max_out, do_sample=False, use_cache=True, eos_token_id=special or None, pad_token_id=0)
        ids = torch.tensor([prompt], device=self._device)
        generate: Any = self._lm.module.generate
        written = generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)[0, len(prompt):].tolist()
        kept = [number for number in written if number not in special]
        return Answer(decode(kept), cut=len(kept) == max_out)


def batches(numbers: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """The numbers in batches of similar length, of at most `most` tokens with their padding, and at least one of them."""
    batch: list[int] = []
    for number in sorted(numbers, key=lambda n: lengths[n]):
        if batch and lengths[number] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
