"""Labels of tokens: Python source by tokenize and ast, other text by its characters."""
import numpy as np
import pytest
from study_halves import BYTES, text_half

from saesweep.errors import UsageError
from saesweep.study.labels import label
from saesweep.study.python_labels import python_labels
from saesweep.study.text_labels import text_labels

SOURCE = '''"""About é."""
import os

class Box(Base):
    # a note
    @cached
    def test_it(self, x: int = 3) -> str:
        try:
            return os.path(f"{x}é", key=[1, (2)])
        except ValueError as error:
            raise KeyError
'''


def words_with(name: str, labeller=python_labels, source: str = SOURCE) -> list[str]:
    """The words, as tokens of one character each, that have a label."""
    offsets = np.array([(number, number + 1) for number in range(len(source))])
    marked = np.zeros(len(source) + 1, bool)
    for span in labeller(source, offsets):
        if span.label == name:
            marked[span.start : span.end] = True
    text = "".join(character if mark else "\0" for character, mark in zip(source, marked, strict=False))
    return [word for word in text.split("\0") if word]


@pytest.mark.parametrize(("name", "expected"), [
    ("docstring", ['"""About é."""']), ("string", ['"""About é."""', 'f"{x}é"']), ("f-string", ['f"{x}é"']),
    ("comment", ["# a note"]), ("number", ["3", "1", "2"]), ("`self`", ["self"]), ("`def`", ["def"]), ("`:`", [":"] * 5),
    ("class name", ["Box"]), ("function name", ["test_it"]), ("parameter", ["self", "x"]), ("annotation", ["int", "str"]),
    ("decorator", ["cached"]), ("called name", ["path"]), ("attribute", ["path"]), ("keyword argument", ["key"]),
    ("in an import", ["import os"]), ("builtin", ["int", "str"]), ("exception", ["ValueError", "KeyError"]),
    ("at the start of a line", ['"""About é."""', "import", "class", "# a note", "@", "def", "try", "return", "except",
                                "raise"]),
    ("at the end of a line", ['"""About é."""', "os", ":", "# a note", "cached", ":", ":", ")", ":", "KeyError"]),
    ("before `(`", ["Box", "test_it", "path", ","]), ("before `def`", []),
    ("before newline", ["os", ":", "cached", ":", ":", ")", ":", "KeyError"]),
    ("in brackets, depth 3", ["2"]), ("at indent level 2", ["try:\n", "except", "ValueError", "as", "error:\n"]),
    ("indent", ["    ", "    ", "    ", "        ", "            ", "        ", "            "]),
])
def test_every_label_of_python_source(name, expected):
    assert words_with(name) == expected


def test_the_places_of_python_source():
    assert [len(word.split("\n")) for word in words_with("in a test")] == [5]
    assert words_with("in a class body")[0].endswith("KeyError") and words_with("in an except block")[0].startswith("except")


def test_a_token_has_the_labels_of_its_first_character_that_is_no_blank_and_may_be_mixed():
    source = "def f(a):\n    pass\n"
    offsets = np.array([(0, 3), (3, 5), (5, 7), (7, 9), (9, 10), (10, 14), (14, 18), (18, 19)])
    found = python_labels(source, offsets)
    of = {number: {span.label for span in found if span.start <= number < span.end} for number in range(8)}
    assert {"function name", "name", "before `(`"} <= of[1] and "mixed" not in of[1]
    assert {"`(`", "mixed"} <= of[2] and "parameter" not in of[2]
    assert {"`)`", "mixed"} <= of[3] and "newline" in of[4] and "indent" in of[5] and "`pass`" in of[6]


@pytest.mark.parametrize("source", ["def f(:\n", "x = 'open\n", "a\rb", "x = (\n", "\0"])
def test_source_that_is_not_python_has_no_labels(source):
    assert python_labels(source, np.array([(0, len(source))])) is None


def test_labels_of_other_text():
    text = "Mr. Fox ran. It ate 3 Яблоки, \"now\"\n\nEnd here"
    assert words_with("capital", text_labels, text) == ["M", "F", "I", "Я", "E"]
    assert words_with("digit", text_labels, text) == ["3"] and words_with("Cyrillic script", text_labels, text) == ["Яблоки"]
    assert words_with("punctuation", text_labels, text) == [".", ".", ",", '"', '"']
    assert words_with("within a word", text_labels, text)[:2] == ["r", "ox"]
    assert words_with("in the first word of a sentence", text_labels, text) == ["Fox", "It", "End"]
    assert words_with("in the last word of a sentence", text_labels, text) == ["ran", "now", "here"]


def test_rare_labels_are_left_out_and_a_document_that_is_not_python_is_not_known():
    fit = text_half(["def f():\n    return 1\n"] * 12)
    test = text_half(["def f():\n    return 1\n"] * 12 + ["lambda x: 1\n" * 30, "not python ("])
    labels = label("python", fit, test, BYTES, min_tokens=12, min_documents=10)
    assert "`def`" in labels.names and "`lambda`" not in labels.names  # in one document
    assert labels.test.known[:-12].all() and not labels.test.known[-12:].any() and labels.fit.known.all()
    row = labels.names.index("`def`")
    assert labels.test.matrix[[row]].indices.tolist() == [22 * n + at for n in range(12) for at in range(3)]
    assert label("none", fit, test, BYTES).names == []


def test_labels_are_by_the_token_of_the_document_across_blocks_with_bos():
    from saesweep.lm.tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer(True, None)
    text = text_half(["x = 'some words'  # note\n"] * 10, tokenizer, context=10)
    labels = label("python", text, text, tokenizer, min_tokens=1)
    row = labels.test.matrix[[labels.names.index("string")]].indices
    assert bytes((text.tokens[row] - 3).tolist()) == b"'some words'" * 10


def test_the_commonest_tokens_are_labels_of_other_text():
    text = text_half(["a b a. "] * 20)
    assert "token `a`" in label("text", text, text, BYTES, min_tokens=10).names


def test_an_unknown_kind_of_labels_is_refused():
    text = text_half(["a"])
    with pytest.raises(UsageError, match=r"labels=words: there are python, text, none"):
        label("words", text, text, BYTES)
