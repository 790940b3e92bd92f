"""Requests, answered from the cache where they are in it, else by the model; each distinct request is asked once."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from saesweep.errors import UsageError
from saesweep.study.judge.cache import ResponseCache, request_key
from saesweep.study.judge.messages import Answer, Failure, Model, Request

Progress = Callable[[int], None]  # of the requests answered since the last call


class Asker:
    def __init__(self, model: Model, cache: ResponseCache, give_up_after: int, progress: Progress) -> None:
        self.model, self.cache, self.give_up_after, self.progress = model, cache, give_up_after, progress
        self.asked, self._failed_in_a_row = 0, 0

    def ask(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """In the order of the requests. Raises UsageError after `give_up_after` failures in a row."""
        keys = [request_key(self.model.parameters(request), request) for request in requests]
        found: dict[str, Answer | Failure] = {key: kept for key in dict.fromkeys(keys) if (kept := self.cache.get(key))}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        self.progress(len(found))
        order = list(missing)
        for number, answer in self.model.complete(list(missing.values())):
            if isinstance(answer, Answer):
                self.cache.put(order[number], answer)
            found[order[number]] = answer
            self._count(answer)
        return [found[key] for key in keys]

    def _count(self, answer: Answer | Failure) -> None:
        self.asked += 1
        self.progress(1)
        self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(answer, Failure) else 0
        if isinstance(answer, Failure) and self._failed_in_a_row >= self.give_up_after:
            raise UsageError(f"explainer.give_up_after={self.give_up_after}: as many requests in a row failed, the last with "
                             f"{answer.reason}; what was answered is kept, so run the same command again once it works")
