"""The tokenizer of a language model, without special tokens, truncation or padding; and one of bytes, for tests."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from saesweep.errors import UsageError

Offsets = list[tuple[int, int]]  # of each token the number of its first character, and of the first after it
RESERVED = 3  # ids of the byte tokenizer that are not bytes: 0 padding, 1 BOS, 2 EOS


@dataclass(frozen=True)
class Tokenizer:
    """`encode` maps texts to token ids and adds no special tokens; `bos` is None where the model is read without BOS."""

    encode: Callable[[list[str]], list[list[int]]]
    bos: int | None
    special: frozenset[int]  # never trained on
    vocab_size: int
    decode: Callable[[list[int]], str] | None = None
    positions: int | None = None  # the longest context of the model, in tokens; None: no limit
    offsets: Callable[[str], Offsets] | None = None  # the characters of each token of `encode`
    symbol: Callable[[int], str | None] | None = None  # a token as the vocabulary spells it, such as <0xE2> for a byte
    chat: Callable[[str | None], tuple[Callable, str]] | None = None  # lm/chat.py; of a file, or the model's own
    causal: bool = True  # of the model: whether it predicts the next token; an encoder does not


def from_backend(
    model: Mapping[str, Any], backend: tokenizers.Tokenizer, bos: int | None, special: Iterable[int],
    positions: int | None = None,
) -> Tokenizer:
    """A Tokenizer of the tokenizers library. Raises UsageError for model.bos=true without a BOS token."""
    if model["bos"] and bos is None:
        raise UsageError(f"model.bos=true: the tokenizer of {model['name']} has no BOS token; set model.bos=false")
    _make_lossless(backend)
    added = [number for number, token in backend.get_added_tokens_decoder().items() if token.special]

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(ids: list[int]) -> str:
        return backend.decode(ids, skip_special_tokens=False)

    def offsets(text: str) -> Offsets:
        return backend.encode_batch([text], add_special_tokens=False)[0].offsets

    never_trained = frozenset([*special, *added])
    bos, size = bos if model["bos"] else None, backend.get_vocab_size()
    return Tokenizer(encode, bos, never_trained, size, decode, positions, offsets, backend.id_to_token)


def _make_lossless(backend: tokenizers.Tokenizer) -> None:
    """Turn off what tokenizer.json may ask for: truncation, padding, and random sampling of merges or pieces."""
    backend.no_truncation()
    backend.no_padding()
    for sampling in ("dropout", "alpha", "nbest_size"):
        if getattr(backend.model, sampling, None) is not None:
            setattr(backend.model, sampling, None)


def byte_tokenizer(bos: bool, positions: int | None) -> Tokenizer:
    """One token per byte of UTF-8, with id byte + RESERVED."""
    def encode(texts: list[str]) -> list[list[int]]:
        return [[byte + RESERVED for byte in text.encode()] for text in texts]

    def decode(ids: list[int]) -> str:
        return bytes(number - RESERVED for number in ids if number >= RESERVED).decode(errors="replace")

    def offsets(text: str) -> Offsets:
        return [(number, number + 1) for number, character in enumerate(text) for _ in character.encode()]

    def symbol(number: int) -> str | None:
        return f"<0x{number - RESERVED:02X}>" if number >= RESERVED else None

    special = frozenset(range(RESERVED))
    return Tokenizer(encode, 1 if bos else None, special, 256 + RESERVED, decode, positions, offsets, symbol)
