"""Documents in a fixed order, split into training and held-out, and cut into blocks of tokens.

    kind: stdlib    the source of Python's standard library, on every machine
    kind: files     txt (a document each), jsonl and parquet (a document per row), by glob
    kind: hub       a dataset of the Hugging Face hub, or a folder like one, streamed and shuffled in a buffer
    kind: tokens    jsonl and parquet with a column of token ids (token_files.py)
    kind: chat      jsonl and parquet with a column of messages, of which the assistant's tokens count (token_files.py)
    kind: mix       several of these, by shares (mixture.py)

The order is drawn from stream_seed. Its first unique documents are held out: the share `held_out`, of a stream that number.
No content is in both splits: duplicates are dropped, and from training every document of whose passages of 200 characters
more than 5% also occur in held-out text (overlap.py). Evaluation and calibration each take every other held-out document
and are kept apart by the same rule: a calibration document that is dropped becomes an empty one. Without the rule 4.9% of
the passages of the default evaluation text also occur in training, with it 0.3%.
"""

import hashlib
import itertools
import logging
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from saesweep.data import corpora
from saesweep.data.documents import Tokenised, digest
from saesweep.data.overlap import RULE, Passages
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer

log = logging.getLogger(__name__)
Split = Literal["train", "held_out"]
BATCH = 64  # documents per call of the tokenizer
PADDING = -1  # token id; below it, -2 - id, are tokens that the language model reads but that are not ordinary


class TextEnded(UsageError):
    """All training documents are read, and text.repeat is false."""


class Corpus:
    """The documents of a file of conf/text. Raises UsageError where it cannot be read or is too small to split."""

    repeat_key, held_out_key = "text.repeat", "text.held_out"  # what gives more of it

    def __init__(self, text: Mapping[str, Any], stream_seed: int, tokenizer: Tokenizer | None = None) -> None:
        """tokenizer: of the language model, which a kind with token ids needs."""
        self.name, self.repeat, self.finite = text["name"], text["repeat"], text["kind"] != "hub"
        self._settings = dict(text)
        if text["kind"] == "stdlib":
            self._split = _Finite(text, corpora.stdlib(), stream_seed)
        elif text["kind"] == "files":
            self._split = _Finite(text, corpora.files(text), stream_seed)
        elif text["kind"] in ("tokens", "chat"):
            assert tokenizer is not None, "ids are those of a tokenizer"
            documents, about = corpora.token_files(text, tokenizer)
            self._split = _Finite(text, documents, stream_seed)
            self._settings |= about
        else:
            self._split = _Stream(text, corpora.Streamed(text, stream_seed))

    @property
    def identity(self) -> dict[str, Any]:
        """The settings, and a digest of the content and of the rule by which it is split."""
        return self._settings | {"digest": hashlib.sha256(RULE.encode() + self._split.content).hexdigest()}

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """Documents from number `start`. Training documents repeat with text.repeat=true, else end with TextEnded."""
        if split == "held_out":
            return itertools.islice(self._split.held_out(), start, None)
        return itertools.islice(self._train(), start, None)

    def one_pass(self, split: Split, number: int = 0) -> Iterator[str]:
        """Every document of the split once; passes over the training documents of a finite text differ in order."""
        return iter(self._split.held_out() if split == "held_out" else self._split.train(number))

    def _train(self) -> Iterator[str]:
        for number in itertools.count():
            documents = self.one_pass("train", number)
            first = next(documents, None)
            if first is not None:
                yield first
                yield from documents
            if first is None or not self.repeat:
                raise TextEnded(f"text={self.name} was read to its end before training was finished: lower tokens, or set "
                                f"{self.repeat_key}=true")


class _Finite:
    """The split of a text whose documents can be indexed."""

    def __init__(self, text: Mapping[str, Any], texts: Sequence[str], seed: int) -> None:
        share = text["held_out"]
        if not 0 < share < 1:
            raise UsageError(f"text.held_out={share}: it is a share of the documents, between 0 and 1; write 0.05")
        numbers = {digest(document): number for number, document in enumerate(texts) if document and document.strip()}
        self.content = hashlib.sha256(b"".join(numbers)).digest()
        unique = list(numbers.values())
        if len(unique) < 2:
            raise UsageError(f"text={text['name']} has {len(unique)} different documents: one is held out, give more")
        order = _shuffled(unique, f"{seed}")
        count = min(max(1, round(share * len(order))), len(order) - 1)
        self._texts, self._seed = texts, seed
        evaluation = Passages(texts[number] for number in order[:count:2])
        self._held_out = [
            None if i % 2 and evaluation.overlap(texts[number]) else number for i, number in enumerate(order[:count])
        ]
        held_out = Passages(self.held_out())
        self._train = [number for number in order[count:] if not held_out.overlap(texts[number])]
        self._report_overlap(text["name"], len(order) - count)

    def _report_overlap(self, name: str, candidates: int) -> None:
        left_out = candidates - len(self._train)
        if not self._train:
            raise UsageError(f"text={name}: all of its {candidates:,} training documents share passages with held-out text; "
                             "use a text whose documents differ")
        if left_out:
            log.info("text=%s: %s of %s training documents share passages with held-out text, and are left out",
                     name, f"{left_out:,}", f"{candidates:,}")

    def held_out(self) -> Iterator[str]:
        return ("" if number is None else self._texts[number] for number in self._held_out)

    def train(self, number: int) -> Iterator[str]:
        order = _shuffled(self._train, f"{self._seed}/{number}") if number else self._train
        return (self._texts[number] for number in order)


class _Stream:
    """The split of a text that can only be iterated."""

    def __init__(self, text: Mapping[str, Any], texts: corpora.Streamed) -> None:
        self._name, self._texts, self._count, self.content = text["name"], texts, text["held_out"], texts.identity.encode()
        if not isinstance(self._count, int) or self._count < 1:
            raise UsageError(f"text.held_out={self._count}: of a stream it is a number of documents; write 2000")

    def held_out(self) -> Iterator[str]:
        return iter(self._held_out_documents[0])

    @cached_property
    def _held_out_documents(self) -> tuple[list[str], set[bytes], Passages]:
        """The held-out documents, their digests and their passages."""
        found: dict[bytes, str] = {}
        for document in self._texts:
            found.setdefault(digest(document), document)
            if len(found) == self._count:
                break
        evaluation = Passages(list(found.values())[::2])
        kept = ["" if i % 2 and evaluation.overlap(document) else document for i, document in enumerate(found.values())]
        return kept, set(found), Passages(kept)

    def train(self, number: int) -> Iterator[str]:
        """The same order in every pass: another would hold out other documents."""
        _, held_out, passages = self._held_out_documents
        reported = False
        for document in self._texts:
            if digest(document) in held_out:
                continue
            if not passages.overlap(document):
                yield document
            elif not reported:
                log.info("text=%s: training documents that share passages with held-out text are left out", self._name)
                reported = True


def _shuffled(numbers: list[int], seed: str) -> list[int]:
    return random.Random(seed).sample(numbers, len(numbers))


def blocks(documents: Iterable[str], tokenizer: Tokenizer, context: int) -> Iterator[Int[Tensor, " context"]]:
    """Documents cut into blocks of `context` tokens, each with BOS first if there is one; the last is padded with -1."""
    for tokens in tokenized(documents, tokenizer):
        yield from pieces(tokens, tokenizer, context)


def pieces(tokens: list[int], tokenizer: Tokenizer, context: int) -> Iterator[Int[Tensor, " context"]]:
    """The blocks of one document's tokens."""
    own = context - (tokenizer.bos is not None)
    found = torch.full((math.ceil(len(tokens) / own), context), PADDING if tokenizer.bos is None else tokenizer.bos)
    padded = tokens + [PADDING] * (len(found) * own - len(tokens))
    found[:, context - own :] = torch.tensor(padded, dtype=torch.long).view(-1, own)
    yield from found


def tokenized(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The token ids of each document, without special tokens."""
    documents = iter(documents)
    while batch := list(itertools.islice(documents, BATCH)):
        encoded = iter(tokenizer.encode([document for document in batch if not isinstance(document, Tokenised)]))
        yield from (document.ids if isinstance(document, Tokenised) else next(encoded) for document in batch)
