"""What is asked of a language model and what comes back."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Request(NamedTuple):
    instructions: str
    content: str
    max_out: int  # tokens of the answer
    choices: tuple[str, ...] = ()  # words between which the answer chooses; empty: it is free text

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.instructions}, {"role": "user", "content": self.content}]


class Answer(NamedTuple):
    text: str
    logprobs: Mapping[str, float] | None = None  # of the likeliest first words; None: the model does not give them
    cut: bool = False  # whether it was longer than max_out


class Failure(NamedTuple):
    """No answer: it is missing, never a score. The reason holds no text of the server, which may repeat a key."""

    reason: str


@runtime_checkable
class Model(Protocol):
    def parameters(self, request: Request) -> Mapping[str, Any]:
        """What determines the answer beside the messages: the model and the parameters of the request."""
        ...

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """The number of each request with what came back, in the order in which they come back."""
        ...
