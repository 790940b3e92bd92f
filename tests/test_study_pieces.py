"""The text of tokens as people see it."""
import dataclasses

import numpy as np
import pytest
from made_ratings import half_of, words_tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from saesweep.lm.tokenizer import byte_tokenizer, from_backend
from saesweep.study.pieces import Piece, Pieces, pieces_around, values_in

EURO = "€".encode()  # E2 82 AC


def sentencepiece(*decoding):
    """A vocabulary as Gemma's and Llama's: ▁ for a blank, tokens of bytes."""
    vocabulary = {word: n for n, word in enumerate(["<unk>", "▁self", "self", "▁", *(f"<0x{b:02X}>" for b in range(256))])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *decoding])
    return from_backend({"name": "made", "bos": False}, backend, None, [])


def byte_level(*tokens):
    vocabulary = {token: n for n, token in enumerate(tokens)}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    return from_backend({"name": "made", "bos": False}, backend, None, [])


@pytest.mark.parametrize("strip", [[], [decoders.Strip(" ", 1, 0)]], ids=["gemma", "llama"])
def test_the_blank_before_a_word_is_shown_as_a_blank(strip):
    texts = Pieces(sentencepiece(*strip))
    assert [texts[n] for n in (1, 2, 3)] == [" self", "self", " "]


def test_whitespace_and_characters_without_a_shape_are_shown():
    texts = Pieces(byte_level("Ċ", "ĉ", "č", "ĠĠx", "\u00e2\u0122\u00ae"))
    assert [texts[n] for n in range(5)] == ["⏎", "→", "\\x0D", "  x", "\\u202E"], "the last turns the direction of writing"


def test_a_part_of_a_character_is_shown_as_its_bytes():
    texts = Pieces(byte_tokenizer(False, None))
    assert [texts[byte + 3] for byte in EURO] == ["\\xE2", "\\x82", "\\xAC"] and texts[ord("a") + 3] == "a"
    texts = Pieces(sentencepiece())
    assert [texts[byte + 4] for byte in EURO] == ["\\xE2", "\\x82", "\\xAC"]
    texts = Pieces(byte_level("âĤ", "¬", "Ġâ"))
    assert [texts[n] for n in range(3)] == ["\\xE2\\x82", "\\xAC", " \\xE2"]


def test_a_token_without_a_text_is_shown_by_its_name_or_number():
    assert Pieces(byte_tokenizer(True, None))[1] == "<1>"
    assert Pieces(sentencepiece())[0] == "<unk>"


def test_a_window_has_the_share_of_the_largest_activation_at_each_token():
    half = half_of(["a b c d"], {0: {1: 2.0, 3: 0.5}})
    found = pieces_around(half, 0, 1, Pieces(words_tokenizer()))
    assert found == [Piece("a", 0), Piece(" b", 1), Piece(" c", 0), Piece(" d", 0.25)]


def test_a_latent_whose_activations_were_not_kept_shows_what_is_known():
    half = half_of(["a b c d"], {0: {1: 2.0, 3: 0.5}})
    none = dataclasses.replace(half.hits, latents=np.zeros(0, np.int64), starts=np.zeros(1, np.int64))
    half = dataclasses.replace(half, hits=none, dense_hits=none)
    assert values_in(half, 0, slice(0, 4)).tolist() == [0, 2, 0, 0.5]
