"""A model behind a server with OpenAI's chat completions, through the package `openai`, which is imported late.

It retries by itself: a lost connection, a timeout, 408, 409, 429 (Retry-After is obeyed) and 5xx. A parameter that the server
refuses is left out from then on, and the log says so. The key is read from the environment and stands in no message, because
failures are reported by their kind and status alone.
"""
from __future__ import annotations

import importlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from saesweep.errors import UsageError
from saesweep.study.judge.messages import Answer, Failure, Request
from saesweep.study.judge.settings import api_key, require_sending_allowed, sends_text_to

log = logging.getLogger(__name__)
QUIET = ("httpx", "httpx2")  # a line per request at INFO, whichever of them the client uses
TOP_LOGPROBS = 5
OPTIONAL = {  # parameters that some servers refuse: what is lost without them
    "logprobs": "P(yes) is 0 or 1", "seed": "answers may differ from run to run", "temperature": "answers are drawn at random",
    "max_tokens": "its place takes max_completion_tokens",
}
REFUSES = re.compile(r"support|unknown|unrecogni[sz]ed|unexpected|invalid param|not (permitted|allowed)|does not take")


class OpenAIModel:
    def __init__(self, settings: Mapping[str, Any], model: str, seed: int) -> None:
        """Raises UsageError where text would be sent without leave, and without a key for a server that is elsewhere."""
        require_sending_allowed(settings)
        self._settings, self._name, self._seed = settings, model, seed
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._openai = importlib.import_module("openai")
        self._client = _client(self._openai, settings)
        self._rate = RateLimit(settings["requests_per_minute"])
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def parameters(self, request: Request) -> dict[str, Any]:
        wanted: dict[str, Any] = {"model": self._name, "temperature": 0, "seed": self._seed, "max_tokens": request.max_out}
        if request.choices:
            wanted |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return wanted | ({"extra_body": dict(self._settings["body"])} if self._settings["body"] else {})

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """As many at a time as explainer.concurrency says. Raises UsageError where the server accepts none of them."""
        pool = ThreadPoolExecutor(self._settings["concurrency"])
        try:
            numbers = {pool.submit(self._one, request): number for number, request in enumerate(requests)}
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, request: Request) -> Answer | Failure:
        for _ in range(len(OPTIONAL) + 1):
            self._rate.wait()
            try:
                completion = self._client.chat.completions.create(messages=request.messages, **self._accepted(request))
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                if not self._leave_out(str(error)):
                    return Failure(_kind(error))
            except (self._openai.APIError, ValueError) as error:
                self._stop_at_once(error)
                return Failure(_kind(error))
            else:
                return answer_of(completion)
        return Failure("a server that refuses all parameters")

    def _accepted(self, request: Request) -> dict[str, Any]:
        with self._lock:
            refused = set(self._refused)
        wanted = self.parameters(request)
        if "max_tokens" in refused:
            wanted["max_completion_tokens"] = wanted["max_tokens"]
        left_out = refused | ({"top_logprobs"} if "logprobs" in refused else set())
        return {key: value for key, value in wanted.items() if key not in left_out}

    def _leave_out(self, message: str) -> bool:
        """Whether the server's refusal names a parameter that it can do without."""
        named = {key for key in OPTIONAL if key in message} if REFUSES.search(message.lower()) else set()
        with self._lock:
            for key in sorted(named - self._refused):
                log.warning("explainer.model=%s: the server refuses %s: %s", self._name, key, OPTIONAL[key])
            self._refused |= named
        return bool(named)

    def _stop_at_once(self, error: Exception) -> None:
        """What no other request would be spared."""
        status, url = getattr(error, "status_code", None), self._settings["base_url"]
        if status in (401, 403):
            raise UsageError(f"explainer.key_variable={self._settings['key_variable']}: {url} does not accept the key in it "
                             f"({status})") from None
        if status == 404:
            raise UsageError(f"explainer.model={self._name}: {url} has no such model, or no chat completions (404)") from None


def _kind(error: Exception) -> str:
    """The class and the status: a server's text may repeat the key."""
    return f"{type(error).__name__} {getattr(error, 'status_code', None) or ''}".strip()


def _client(openai: Any, settings: Mapping[str, Any]) -> Any:
    """Text for this machine takes no proxy, and no server can pass it on to another."""
    away = sends_text_to(settings)
    http = openai.DefaultHttpxClient(trust_env=away is not None, follow_redirects=False)
    return openai.OpenAI(api_key=api_key(settings) or "none", base_url=settings["base_url"], max_retries=settings["retries"],
                         timeout=settings["timeout"], http_client=http)


def answer_of(completion: Any) -> Answer | Failure:
    """A Failure where it is no chat completion, or has no choice or no text: servers differ, and so do their mistakes."""
    try:
        if not completion.choices:
            return Failure("an answer without choices")
        choice = completion.choices[0]
        if not isinstance(choice.message.content, str):
            return Failure("an answer without text")
        return Answer(choice.message.content, _first_word(choice), choice.finish_reason == "length")
    except (AttributeError, TypeError, KeyError, IndexError):
        return Failure("an answer that is no chat completion")


def _first_word(choice: Any) -> dict[str, float] | None:
    """The log-probabilities of the likeliest tokens at the first place where the answer is not blank."""
    for place in getattr(choice.logprobs, "content", None) or ():
        if place.token.strip():
            top = {one.token: float(one.logprob) for one in place.top_logprobs or ()}
            return top | {place.token: float(place.logprob)}
    return None


class RateLimit:
    """A bucket that holds one token and gets a new one every 60 / per_minute seconds. None: no limit."""

    def __init__(
        self, per_minute: float | None, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._next, self._lock = clock(), threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._sleep(turn - now)
