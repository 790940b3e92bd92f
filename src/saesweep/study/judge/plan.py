"""What explaining and judging costs, before anything is asked: an upper bound, from made-up windows of full length.

Tokens are estimated as characters / CHARACTERS. A request that is in the cache costs nothing, and is counted all the same.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saesweep.errors import UsageError
from saesweep.study.hits import AFTER, BEFORE
from saesweep.study.judge.all_tasks import TASKS
from saesweep.study.judge.controls import CONDITIONS
from saesweep.study.judge.explanation import LONGEST, WINDOWS, explanation_request
from saesweep.study.judge.messages import Request
from saesweep.study.judge.settings import has_model, sends_text_to
from saesweep.study.judge.windows import TEST, LatentExamples, Window

CHARACTERS = 4  # of a token
PER = 1_000_000  # tokens that a price is of


class Plan(NamedTuple):
    latents: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None  # None: no price is set
    host: str | None  # to which text leaves this machine

    def lines(self) -> list[str]:
        cost = "" if self.money is None else f", at most {self.money:,.2f} at the prices set"
        tokens = f"about {self.prompt_tokens:,} prompt and at most {self.completion_tokens:,} completion tokens"
        sent = [f"held-out text is sent to {self.host}, which needs explainer.send_text=true"] if self.host else []
        return [f"explainer: at most {self.requests:,} requests for {self.latents:,} latents, {tokens}{cost}", *sent]


def plan(available: Sequence[int], settings: Mapping[str, Any]) -> Plan:
    """available: the number of latents with examples, of each SAE and control."""
    if not has_model(settings):
        return Plan(sum(available), 0, 0, 0, None, None)
    latents = [min(one, settings["latents"]) for one in available]
    again = sum(math.ceil(settings["controls"] * one) for one in latents)
    first, repeated = _requests(settings)
    requests = [(sum(latents), one) for one in first] + [(again, one) for one in repeated]
    prompt = sum(times * (len(one.instructions + one.content) // CHARACTERS) for times, one in requests)
    completion = sum(times * one.max_out for times, one in requests)
    return Plan(sum(latents), sum(times for times, _ in requests), prompt, completion, _money(settings, prompt, completion),
                sends_text_to(settings))


def require_affordable(planned: Plan, settings: Mapping[str, Any]) -> None:
    """Raise UsageError above explainer.max_requests."""
    if has_model(settings) and planned.requests > settings["max_requests"]:
        raise UsageError(f"explainer.max_requests={settings['max_requests']}: {planned.latents:,} latents need up to "
                         f"{planned.requests:,} requests; lower explainer.latents, explainer.windows or explainer.controls, or "
                         f"write explainer.max_requests={planned.requests}")


def _requests(settings: Mapping[str, Any]) -> tuple[list[Request], list[Request]]:
    """Of every latent, and of those that are asked again under the CONDITIONS."""
    made, repeated = _made_up(settings["windows"]), list[Request]()
    first = list(filter(None, [explanation_request(made)])) if settings["explain"] == "model" else []
    for task in (TASKS[name] for name in settings["tasks"]):
        asked = [question.request for question in task.ask(made, "x" * (LONGEST // 2), settings["windows"], 0)]
        first += asked
        repeated += asked * len(CONDITIONS) if task.explained else []
    return first, repeated


def _made_up(count: int) -> LatentExamples:
    size = BEFORE + 1 + AFTER
    silent = Window(("word",) * size, np.zeros(size))
    active = silent._replace(values=np.eye(1, size, BEFORE)[0])
    return LatentExamples("", None, 0, 1.0, {group: [active] * many for group, many in WINDOWS.items()},
                          {group: [active if group == "decile" else silent] * count for group in TEST})


def _money(settings: Mapping[str, Any], prompt: int, completion: int) -> float | None:
    price = settings.get("price") or {}
    if price.get("input") is None or price.get("output") is None:
        return None
    return (prompt * price["input"] + completion * price["output"]) / PER
