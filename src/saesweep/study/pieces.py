"""The text of tokens for people, and the tokens of a window with how strongly a latent is active on each.

A token's text is what it adds to its own repetition, decode(tt) without decode(t), as some tokenizers strip the blank that
begins a text. Newlines are shown as ⏎, tabs as →, other characters without a shape as escapes, and a token that is part of
a character as its bytes, such as \\xE2\\x80.
"""
from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.hits import Half

SHOWN = {"\n": "⏎", "\t": "→"}
SHAPELESS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Unicode's categories: control, format, line separators
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a decoder gives for part of a character


class Piece(NamedTuple):
    """A token of a window."""

    text: str
    share: float  # of the latent's largest activation; 0 where it is silent


class Pieces:
    """The texts of the tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str] = {}

    def __getitem__(self, number: int) -> str:
        """As it is shown."""
        if number not in self.known:
            self.known[number] = self._shown(number)
        return self.known[number]

    def _shown(self, number: int) -> str:
        text, symbol = self.plain(number), (self.tokenizer.symbol or (lambda number: None))(number)
        if INCOMPLETE in text and symbol is not None:
            return _from_bytes(symbol)
        return shown(text or symbol or f"<{number}>")

    def verbatim(self, number: int) -> str:
        """As it stands in a text; as it is shown where the tokenizer does not decode it."""
        return self.plain(number) or self[number]

    def plain(self, number: int) -> str:
        """As it stands in a text; empty where the tokenizer does not decode."""
        if self.tokenizer.decode is None:
            return ""
        once, twice = (self.tokenizer.decode([number] * times) for times in (1, 2))
        return twice.removeprefix(once) if twice.startswith(once) else once


def shown(text: str) -> str:
    """With a visible sign for each character that has none."""
    return "".join(SHOWN.get(one) or (_escape(one) if unicodedata.category(one) in SHAPELESS else one) for one in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _from_bytes(symbol: str) -> str:
    """The bytes of a token that is not whole characters: <0xE2> in SentencePiece, GPT-2's alphabet of bytes elsewhere."""
    if found := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", symbol):
        return f"\\x{found[1].upper()}"
    if not set(symbol) <= ALPHABET.keys():
        return shown(symbol)
    text = bytes(ALPHABET[one] for one in symbol).decode(errors="surrogateescape")
    return "".join(f"\\x{ord(one) - 0xDC00:02X}" if 0xDC80 <= ord(one) < 0xDD00 else shown(one) for one in text)


def _alphabet() -> dict[str, int]:
    """GPT-2's: printable Latin-1 bytes stand for themselves, the others for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


ALPHABET = _alphabet()


def values_in(half: Half, latent: int, window: slice) -> Float32[np.ndarray, " window"]:
    """A latent's activations on a window. Of a latent whose activations were not kept on the whole half: those on the
    tokens `dense`, and those that are among the largest or in the sample."""
    values = np.zeros(window.stop - window.start, np.float32)
    try:
        found = [half.hits.of(latent)]
    except KeyError:
        found = [half.dense_hits.of(latent)] if latent in half.dense_hits.latents else []
        found += [(kept.positions[latent], kept.values[latent]) for kept in (half.top, half.sample)]
    for positions, active in found:
        inside = (positions >= window.start) & (positions < window.stop)
        values[positions[inside] - window.start] = active[inside]
    return values


class Around(NamedTuple):
    """The tokens of a window, without special tokens."""

    ids: Int32[np.ndarray, " n"]
    values: Float32[np.ndarray, " n"]  # in training units; 0 where the latent is silent
    at: int  # which of them is at the position that the window is of


def around(half: Half, latent: int, position: int) -> Around:
    window = half.text.window(position)
    ordinary = half.text.ordinary[window]
    values = values_in(half, latent, window)[ordinary]
    return Around(half.text.tokens[window][ordinary], values, int(ordinary[: position - window.start].sum()))


def pieces_around(half: Half, latent: int, position: int, texts: Pieces) -> list[Piece]:
    """The tokens around a position, without special tokens."""
    ids, values, _ = around(half, latent, position)
    shares = values / max(float(half.top.values[latent, 0]), 1e-30)
    return [Piece(texts[int(one)], float(share)) for one, share in zip(ids, shares, strict=True)]
